"""`python tools/compare.py --help`; the command is rrt/commands/compare.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("compare")
