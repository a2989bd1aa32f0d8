"""`python tools/verify_pairs.py --help`; the command is rrt/commands/verify_pairs.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("verify_pairs")
