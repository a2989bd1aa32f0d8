"""`python tools/report.py --help`; the command is rrt/commands/report.py."""

from rrt.command_line.parser import run_command
from rrt.commands.report import main

if __name__ == "__main__":
    run_command(main)
