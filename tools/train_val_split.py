"""`python tools/train_val_split.py --help`; the command is rrt/commands/train_val_split.py."""

from rrt.command_line.parser import run_command
from rrt.commands.train_val_split import main

if __name__ == "__main__":
    run_command(main)
