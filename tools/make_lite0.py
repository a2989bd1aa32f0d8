"""`python tools/make_lite0.py --help`; the command is rrt/commands/make_lite0.py."""

from rrt.command_line.parser import run_command
from rrt.commands.make_lite0 import main

if __name__ == "__main__":
    run_command(main)
