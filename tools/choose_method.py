"""`python tools/choose_method.py --help`; the command is rrt/commands/choose_method.py."""

from rrt.command_line.parser import run_command
from rrt.commands.choose_method import main

if __name__ == "__main__":
    run_command(main)
