"""The command line of the commands that are not on Sacred (`rrt.command_line.sacred`): argparse with what all of them
have."""

import argparse
import os
import re
import shlex
import sys
from dataclasses import fields

from rrt.errors import InputError, describe_error
from rrt.extras import describe_missing
from rrt.progress import set_quiet

QUIET_HELP = (
    "no progress bars nor lines about the progress; results, warnings and errors are printed (also: RRT_QUIET=1)"
)


class _Quiet(argparse.Action):
    """Leaves nothing in the namespace: whoever draws a bar asks rrt.progress."""

    def __init__(self, option_strings, dest, **options):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser, namespace, values, option_string=None):
        set_quiet(True)


class CommandParser(argparse.ArgumentParser):
    """argparse's, with --quiet and the description printed as it is written; sub-parsers are of this kind, too."""

    def __init__(
        self,
        description=None,
        *,
        formatter_class: type[argparse.HelpFormatter] = argparse.RawDescriptionHelpFormatter,
        **options,
    ):
        super().__init__(description=description, formatter_class=formatter_class, **options)
        self.add_argument("--quiet", action=_Quiet, help=QUIET_HELP)

    def add_fields(self, settings: type, meanings: dict[str, str]) -> None:
        """An option --NAME for each field of a dataclass, of the type of its default and with its meaning."""
        for field in fields(settings):
            of_field = {"type": type(field.default), "default": field.default, "help": meanings[field.name]}
            self.add_argument(f"--{field.name}", **of_field)

    def parse_args(self, args=None, namespace=None):
        """argparse's; what an earlier command of this process asked for with --quiet is forgotten."""
        set_quiet(False)  # of an earlier command of this process
        return super().parse_args(expand_home(list(sys.argv[1:] if args is None else args)), namespace)


def called_as(script: str) -> str:
    """What stands before the arguments of a command whose sys.argv[0] is ``script``: `python tools/NAME.py`, or
    `rrt NAME` as rrt.commands.__main__ leaves it there."""
    return script if script.startswith(("rrt ", "python -m rrt.commands ")) else f"python {shlex.quote(script)}"


def expand_home(arguments: list[str]) -> list[str]:
    """Command-line arguments in which `--name=~/x` means what `--name ~/x` does, where the shell sees to it."""
    return [
        argument[: match.end()] + os.path.expanduser(argument[match.end() :])
        if (match := re.match(r"--[\w-]+=(?=~(/|$))", argument))
        else argument
        for argument in arguments
    ]


def run_command(main):
    """Run `main()` as a command: its return value (None = 0) is the exit status.

    InputError, OSError and a package of an extra that is not installed become one line `error: ...` on standard error
    and exit status 1; an interrupt becomes 130.
    """
    try:
        status = main()
    except (InputError, OSError) as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        remedy = describe_missing(error)
        if not remedy:
            raise
        print(f"error: {remedy}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)
