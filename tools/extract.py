"""`python tools/extract.py --help`; the command is rrt/commands/extract.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("extract")
