"""`python experiment.py --help`; the command is rrt/commands/experiment.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.experiment import ex

if __name__ == "__main__":
    run_sacred(ex)
