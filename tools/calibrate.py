"""`python tools/calibrate.py --help`; the command is rrt/commands/calibrate.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("calibrate")
