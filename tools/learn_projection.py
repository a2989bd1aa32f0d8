"""`python tools/learn_projection.py --help`; the command is rrt/commands/learn_projection.py."""

from rrt.command_line.parser import run_command
from rrt.commands.learn_projection import main

if __name__ == "__main__":
    run_command(main)
