"""`python tools/make_flat.py --help`; the command is rrt/commands/make_flat.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("make_flat")
