"""`python tools/doctor.py --help`; the command is rrt/commands/doctor.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("doctor")
