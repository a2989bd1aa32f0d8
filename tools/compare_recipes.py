"""`python tools/compare_recipes.py --help`; the command is rrt/commands/compare_recipes.py."""

from rrt.commands.__main__ import run

if __name__ == "__main__":
    run("compare_recipes")
