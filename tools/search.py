"""`python tools/search.py --help`; the command is rrt/commands/search.py."""

from rrt.command_line.parser import run_command
from rrt.commands.search import main

if __name__ == "__main__":
    run_command(main)
