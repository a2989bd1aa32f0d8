"""`python tools/learn_attention.py --help`; the command is rrt/commands/learn_attention.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("learn_attention")
