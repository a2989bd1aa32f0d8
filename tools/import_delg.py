"""`python tools/import_delg.py --help`; the command is rrt/commands/import_delg.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("import_delg")
