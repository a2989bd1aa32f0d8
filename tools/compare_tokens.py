"""`python tools/compare_tokens.py --help`; the command is rrt/commands/compare_tokens.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("compare_tokens")
