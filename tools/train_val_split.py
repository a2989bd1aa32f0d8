"""`python tools/train_val_split.py --help`; the command is rrt/commands/train_val_split.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("train_val_split")
