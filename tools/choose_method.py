"""`python tools/choose_method.py --help`; the command is rrt/commands/choose_method.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("choose_method")
