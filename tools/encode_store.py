"""`python tools/encode_store.py --help`; the command is rrt/commands/encode_store.py."""

from rrt.command_line.parser import run_command
from rrt.commands.encode_store import main

if __name__ == "__main__":
    run_command(main)
