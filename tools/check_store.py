"""`python tools/check_store.py --help`; the command is rrt/commands/check_store.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("check_store")
