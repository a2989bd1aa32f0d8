"""`python tools/search.py --help`; the command is rrt/commands/search.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("search")
