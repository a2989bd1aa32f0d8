"""`python tools/make_scenes.py --help`; the command is rrt/commands/make_scenes.py."""

from rrt.command_line.parser import run_command
from rrt.commands.make_scenes import main

if __name__ == "__main__":
    run_command(main)
