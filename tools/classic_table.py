"""`python tools/classic_table.py --help`; the command is rrt/commands/classic_table.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("classic_table")
