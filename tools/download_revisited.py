"""`python tools/download_revisited.py --help`; the command is rrt/commands/download_revisited.py."""

from rrt.command_line.parser import run_command
from rrt.commands.download_revisited import main

if __name__ == "__main__":
    run_command(main)
