"""`python tools/strip_checkpoint.py --help`; the command is rrt/commands/strip_checkpoint.py."""

from rrt.command_line.parser import run_command
from rrt.commands.strip_checkpoint import main

if __name__ == "__main__":
    run_command(main)
