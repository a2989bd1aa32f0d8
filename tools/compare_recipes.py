"""`python tools/compare_recipes.py --help`; the command is rrt/commands/compare_recipes.py."""

from rrt.command_line.parser import run_command
from rrt.commands.compare_recipes import main

if __name__ == "__main__":
    run_command(main)
