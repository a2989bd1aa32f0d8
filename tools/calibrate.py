"""`python tools/calibrate.py --help`; the command is rrt/commands/calibrate.py."""

from rrt.command_line.parser import run_command
from rrt.commands.calibrate import main

if __name__ == "__main__":
    run_command(main)
