"""`python tools/download_revisited.py --help`; the command is rrt/commands/download_revisited.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("download_revisited")
