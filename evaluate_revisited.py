"""`python evaluate_revisited.py --help`; the command is rrt/commands/evaluate_revisited.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.evaluate_revisited import ex

if __name__ == "__main__":
    run_sacred(ex)
