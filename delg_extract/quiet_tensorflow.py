"""TensorFlow, imported without its start-up notes: no setting silences them, and they would bury our one-line errors."""
import os
import sys
from contextlib import contextmanager


def _imported_quietly():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        import tensorflow
        tensorflow.config.list_physical_devices()
        tensorflow.constant(0)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
    return tensorflow


try:
    tf = _imported_quietly()
except ImportError:
    sys.exit("error: delg_extract needs TensorFlow; install it with: pip install -e '.[extract]'")


@contextmanager
def without_warnings():
    """Keeps TensorFlow's notes back: of each variable of a TF1 model that cannot be trained, and of where a model was saved."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
