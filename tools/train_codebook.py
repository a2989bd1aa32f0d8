"""`python tools/train_codebook.py --help`; the command is rrt/commands/train_codebook.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("train_codebook")
