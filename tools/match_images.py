"""`python tools/match_images.py --help`; the command is rrt/commands/match_images.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("match_images")
