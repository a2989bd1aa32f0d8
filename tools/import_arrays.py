"""`python tools/import_arrays.py --help`; the command is rrt/commands/import_arrays.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("import_arrays")
