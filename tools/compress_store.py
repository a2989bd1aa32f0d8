"""`python tools/compress_store.py --help`; the command is rrt/commands/compress_store.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("compress_store")
