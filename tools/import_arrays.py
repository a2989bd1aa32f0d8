"""`python tools/import_arrays.py --help`; the command is rrt/commands/import_arrays.py."""

from rrt.command_line.parser import run_command
from rrt.commands.import_arrays import main

if __name__ == "__main__":
    run_command(main)
