"""Runs a command whose processes are forks of it: they have loaded what a warm Python has, which takes processes that
are started anew seconds. For commands that compute nothing before. With tiny_delg.py before the script the forks have
its backbone.

    python tests/helpers/forked.py SCRIPT [ARGUMENTS]
"""

import multiprocessing
import os
import runpy
import sys

context = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: context("fork")
del sys.argv[0]
if sys.argv[0].endswith("tiny_delg.py"):  # it loads TensorFlow, whose threads no fork has
    tiny = sys.argv.pop(0)
    os.register_at_fork(after_in_child=lambda: runpy.run_path(tiny)["make_small_tiny"]())
runpy.run_path(sys.argv[0], run_name="__main__")
