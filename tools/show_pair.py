"""`python tools/show_pair.py --help`; the command is rrt/commands/show_pair.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("show_pair")
