"""`python tools/encode_store.py --help`; the command is rrt/commands/encode_store.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("encode_store")
