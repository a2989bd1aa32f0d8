"""Weights of a small DELG network for tests that may not load TensorFlow themselves."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from commands import warm_python


def write_small_delg(path, tiny=False):
    """A weight file of the backbone `small`, untrained; returns its path. Skips the test where TensorFlow is not. tiny:
    see tiny_delg.py."""
    if not find_spec("tensorflow"):
        pytest.skip("TensorFlow is not installed")
    python = warm_python("tensorflow", tiny_delg=tiny)
    subprocess.run([python, __file__, str(path)], check=True, capture_output=True)
    return path


if __name__ == "__main__":
    from delg_extract.network.model import Delg
    from delg_extract.network.weights import save_weights

    save_weights(sys.argv[1], Delg("small", seed=3, block3_strides=False))
