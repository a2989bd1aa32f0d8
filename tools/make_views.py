"""`python tools/make_views.py --help`; the command is rrt/commands/make_views.py."""

from rrt.command_line.parser import run_command
from rrt.commands.make_views import main

if __name__ == "__main__":
    run_command(main)
