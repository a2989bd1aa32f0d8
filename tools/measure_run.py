"""`python tools/measure_run.py --help`; the command is rrt/commands/measure_run.py."""

from rrt.command_line.parser import run_command
from rrt.commands.measure_run import main

if __name__ == "__main__":
    run_command(main)
