"""`python tools/make_views.py --help`; the command is rrt/commands/make_views.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("make_views")
