"""`python tools/tune_fusion.py --help`; the command is rrt/commands/tune_fusion.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.tune_fusion import ex

if __name__ == "__main__":
    run_sacred(ex)
