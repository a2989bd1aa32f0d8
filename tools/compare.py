"""`python tools/compare.py --help`; the command is rrt/commands/compare.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.compare import ex

if __name__ == "__main__":
    run_sacred(ex)
