"""`python tools/show_pair.py --help`; the command is rrt/commands/show_pair.py."""

from rrt.command_line.parser import run_command
from rrt.commands.show_pair import main

if __name__ == "__main__":
    run_command(main)
