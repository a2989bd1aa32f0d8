"""`python tools/learn_projection.py --help`; the command is rrt/commands/learn_projection.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("learn_projection")
