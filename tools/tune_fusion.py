"""`python tools/tune_fusion.py --help`; the command is rrt/commands/tune_fusion.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("tune_fusion")
