"""`python tools/make_lite0.py --help`; the command is rrt/commands/make_lite0.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("make_lite0")
