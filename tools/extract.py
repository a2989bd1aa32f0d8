"""`python tools/extract.py --help`; the command is rrt/commands/extract.py."""

from rrt.command_line.parser import run_command
from rrt.commands.extract import main

if __name__ == "__main__":
    run_command(main)
