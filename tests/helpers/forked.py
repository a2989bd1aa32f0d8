"""Runs a command whose processes are forks of it: they have loaded what a warm Python has, which takes processes that
are started anew seconds. For commands that compute nothing before.

    python tests/helpers/forked.py SCRIPT [ARGUMENTS]
"""

import multiprocessing
import runpy
import sys

context = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: context("fork")
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
