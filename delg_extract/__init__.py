"""DELG descriptors with TensorFlow: training, extraction, export. Never imports torch."""
import os

# Before TensorFlow is loaded anywhere below: its start-up notes would bury our own one-line errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
