"""DELG descriptors with TensorFlow: training, extraction, export. Never imports torch.

Modules that need TensorFlow take it from ``delg_extract.network.tensorflow``; the others (settings, images, parts,
workers) do without, so that a process that only hands out work stays small.
"""
