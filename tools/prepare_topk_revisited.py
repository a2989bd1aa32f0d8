"""`python tools/prepare_topk_revisited.py --help`; the command is rrt/commands/prepare_topk_revisited.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.prepare_topk_revisited import ex

if __name__ == "__main__":
    run_sacred(ex)
