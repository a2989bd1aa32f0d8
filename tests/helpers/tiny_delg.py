"""Runs a command of delg_extract with a backbone `small` of half the layers and few channels: TensorFlow's work on each
layer, once for every process, is most of a training on eight images. Processes that the command starts have the usual
one, unless they are forks.

    python tests/helpers/tiny_delg.py SCRIPT [ARGUMENTS]
"""

import runpy
import sys

from delg_extract.network.model import BACKBONES, Backbone

TINY = Backbone(8, (4, 8, 8, 16), (1, 1, 2, 1), attention=16, embedding=48)


def make_small_tiny():
    BACKBONES["small"] = TINY


if __name__ == "__main__":
    make_small_tiny()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
