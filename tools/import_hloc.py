"""`python tools/import_hloc.py --help`; the command is rrt/commands/import_hloc.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("import_hloc")
