"""`python tools/make_scenes.py --help`; the command is rrt/commands/make_scenes.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("make_scenes")
