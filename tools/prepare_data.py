"""`python tools/prepare_data.py --help`; the command is rrt/commands/prepare_data.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("prepare_data")
