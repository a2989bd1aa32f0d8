"""`python tools/compare_stores.py --help`; the command is rrt/commands/compare_stores.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.compare_stores import ex

if __name__ == "__main__":
    run_sacred(ex)
