"""`python experiment.py --help`; the command is rrt/commands/experiment.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("experiment")
