"""`python tools/classic_table.py --help`; the command is rrt/commands/classic_table.py."""

from rrt.command_line.parser import run_command
from rrt.commands.classic_table import main

if __name__ == "__main__":
    run_command(main)
