"""`python tools/export_delg.py --help`; the command is rrt/commands/export_delg.py."""

from rrt.command_line.sacred import run_sacred
from rrt.commands.export_delg import ex

if __name__ == "__main__":
    run_sacred(ex)
