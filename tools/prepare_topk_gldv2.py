"""`python tools/prepare_topk_gldv2.py --help`; the command is rrt/commands/prepare_topk_gldv2.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("prepare_topk_gldv2")
