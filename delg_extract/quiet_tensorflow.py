"""TensorFlow, imported without its start-up notes: no setting silences them, and they would bury our one-line errors.

DELG_CPU_REPLICAS=2 divides the processor into two devices, to try training on several without GPUs.
"""
import os
import sys


def _imported_quietly():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        import tensorflow
        processor, = tensorflow.config.list_physical_devices("CPU")
        if replicas := int(os.environ.get("DELG_CPU_REPLICAS", "0")):
            tensorflow.config.set_logical_device_configuration(processor, [tensorflow.config.LogicalDeviceConfiguration()] * replicas)
        if "TF_CONFIG" not in os.environ:  # a cluster must be joined before the first operation
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
