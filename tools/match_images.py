"""`python tools/match_images.py --help`; the command is rrt/commands/match_images.py."""

from rrt.command_line.parser import run_command
from rrt.commands.match_images import main

if __name__ == "__main__":
    run_command(main)
