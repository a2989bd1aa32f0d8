"""`python tools/prepare_gnd.py --help`; the command is rrt/commands/prepare_gnd.py."""

from rrt.command_line.parser import run_command
from rrt.commands.prepare_gnd import main

if __name__ == "__main__":
    run_command(main)
