"""`python tools/export_delg.py --help`; the command is rrt/commands/export_delg.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("export_delg")
