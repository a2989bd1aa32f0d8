"""`python tools/measure_run.py --help`; the command is rrt/commands/measure_run.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("measure_run")
