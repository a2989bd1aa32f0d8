"""`python tools/prepare_data.py --help`; the command is rrt/commands/prepare_data.py."""

from rrt.command_line.parser import run_command
from rrt.commands.prepare_data import main

if __name__ == "__main__":
    run_command(main)
