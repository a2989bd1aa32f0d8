"""`python tools/train_codebook.py --help`; the command is rrt/commands/train_codebook.py."""

from rrt.command_line.parser import run_command
from rrt.commands.train_codebook import main

if __name__ == "__main__":
    run_command(main)
