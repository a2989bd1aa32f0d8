"""`python tools/prepare_gnd.py --help`; the command is rrt/commands/prepare_gnd.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("prepare_gnd")
