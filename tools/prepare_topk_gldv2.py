"""`python tools/prepare_topk_gldv2.py --help`; the command is rrt/commands/prepare_topk_gldv2.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.prepare_topk_gldv2 import ex

if __name__ == "__main__":
    run_sacred(ex)
