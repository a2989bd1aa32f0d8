"""`python tools/compare_tokens.py --help`; the command is rrt/commands/compare_tokens.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.compare_tokens import ex

if __name__ == "__main__":
    run_sacred(ex)
