"""DELG descriptors with TensorFlow: training, extraction, export. Never imports torch."""
import os
import sys


def _import_tensorflow_quietly() -> None:
    """TensorFlow's C++ side writes start-up notes to standard error that no setting silences; they would bury our one-line errors."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        import tensorflow as tf
        tf.config.list_physical_devices()
        tf.constant(0)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


if "tensorflow" not in sys.modules:
    try:
        _import_tensorflow_quietly()
    except ImportError:
        sys.exit("error: delg_extract needs TensorFlow; install it with: pip install -e '.[extract]'")
