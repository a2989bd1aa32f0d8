"""`python tools/compare_stores.py --help`; the command is rrt/commands/compare_stores.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("compare_stores")
