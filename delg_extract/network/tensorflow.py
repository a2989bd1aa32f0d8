"""TensorFlow, imported without its start-up notes: no setting silences them, and they would bury our one-line errors.

DELG_CPU_REPLICAS=2 divides the processor into two devices, to try training on several without GPUs.
"""

import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING


@contextmanager
def native_messages_hidden():
    """Hides what C libraries print meanwhile (libjpeg: a line for each damaged image, nameless), not what Python
    prints."""
    with _standard_error_discarded() as descriptor:
        ours = sys.stderr
        try:
            is_descriptor_2 = ours.fileno() == 2
        except (AttributeError, io.UnsupportedOperation, ValueError):
            is_descriptor_2 = False
        if not is_descriptor_2:
            yield
            return
        with open(
            descriptor, "w", buffering=1, encoding=ours.encoding, errors=ours.errors, closefd=False
        ) as sys.stderr:
            try:
                yield
            finally:
                sys.stderr = ours


@contextmanager
def _standard_error_discarded():
    """Descriptor 2 leads nowhere; yields one that leads where it led."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield saved
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _imported_quietly():
    text = os.environ.get("DELG_CPU_REPLICAS", "1")
    replicas = int(text) if text.isdecimal() else 0
    if replicas < 1:
        sys.exit(f"error: DELG_CPU_REPLICAS={text}: expected how many devices the processor is divided into, 1 or more")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # TensorFlow loads Keras with it, a third of its start, to know optimizers in SavedModels that nobody here loads.
    # The old Keras is not installed, so that none is; what needs Keras imports it.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    with _standard_error_discarded():
        import tensorflow

        (processor,) = tensorflow.config.list_physical_devices("CPU")
        if replicas > 1:
            tensorflow.config.set_logical_device_configuration(
                processor, [tensorflow.config.LogicalDeviceConfiguration()] * replicas
            )
        if "TF_CONFIG" not in os.environ:  # a cluster must be joined before the first operation
            tensorflow.constant(0)
    return tensorflow


if TYPE_CHECKING:
    import tensorflow as tf
else:
    try:
        tf = _imported_quietly()
    except ImportError:
        sys.exit("error: delg_extract needs TensorFlow; pip install 'rrt[delg]'")


@contextmanager
def without_warnings():
    """Keeps TensorFlow's notes back: of each variable of a TF1 model that cannot be trained, and of where a model was
    saved."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
