"""`python tools/import_hloc.py --help`; the command is rrt/commands/import_hloc.py."""

from rrt.command_line.parser import run_command
from rrt.commands.import_hloc import main

if __name__ == "__main__":
    run_command(main)
