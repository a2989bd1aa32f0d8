"""`python tools/report.py --help`; the command is rrt/commands/report.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("report")
