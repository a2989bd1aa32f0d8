"""`python tools/published.py --help`; the command is rrt/commands/published.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("published")
