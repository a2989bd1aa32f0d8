"""`python evaluate_revisited.py --help`; the command is rrt/commands/evaluate_revisited.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("evaluate_revisited")
