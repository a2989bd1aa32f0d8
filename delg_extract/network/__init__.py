"""The DELG network in TensorFlow and its weights."""
