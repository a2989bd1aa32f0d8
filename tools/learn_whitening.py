"""`python tools/learn_whitening.py --help`; the command is rrt/commands/learn_whitening.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("learn_whitening")
