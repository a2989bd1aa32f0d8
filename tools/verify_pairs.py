"""`python tools/verify_pairs.py --help`; the command is rrt/commands/verify_pairs.py."""

from rrt.command_line.parser import run_command
from rrt.commands.verify_pairs import main

if __name__ == "__main__":
    run_command(main)
