"""`python tools/strip_checkpoint.py --help`; the command is rrt/commands/strip_checkpoint.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("strip_checkpoint")
