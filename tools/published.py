"""`python tools/published.py --help`; the command is rrt/commands/published.py."""

from rrt.command_line.parser import run_command
from rrt.commands.published import main

if __name__ == "__main__":
    run_command(main)
