"""`python tools/import_delg.py --help`; the command is rrt/commands/import_delg.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.import_delg import ex

if __name__ == "__main__":
    run_sacred(ex)
