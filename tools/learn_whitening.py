"""`python tools/learn_whitening.py --help`; the command is rrt/commands/learn_whitening.py."""

from rrt.command_line.parser import run_command
from rrt.commands.learn_whitening import main

if __name__ == "__main__":
    run_command(main)
