"""`python tools/doctor.py --help`; the command is rrt/commands/doctor.py."""

from rrt.command_line.parser import run_command
from rrt.commands.doctor import main

if __name__ == "__main__":
    run_command(main)
