"""What lacks is named with the line that installs it."""

import pytest

from rrt.command_line.parser import run_command
from rrt.extras import EXTRAS, describe_missing, extra_of


@pytest.mark.parametrize(
    "module, extra",
    [
        ("uvicorn.protocols.http", "web"),
        ("sacred", "experiments"),
        ("pandas", "experiments"),
        ("tensorflow", "delg"),
        ("transformers", "backbones"),
        ("pillow_heif", "heif"),
        ("ray", "cluster"),
    ],
)
def test_a_package_of_an_extra_is_told_in_one_line(module, extra, capsys):
    def command():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    with pytest.raises(SystemExit) as ended:
        run_command(command)
    line = f"error: the package {module} is not installed; pip install 'rrt[{extra}]'\n"
    assert ended.value.code == 1 and capsys.readouterr().err == line


def test_what_no_extra_brings_is_a_bug_with_its_traceback():
    def command():
        raise ModuleNotFoundError("No module named 'rrt.absent'", name="rrt.absent")

    with pytest.raises(ModuleNotFoundError):
        run_command(command)
    assert describe_missing(ModuleNotFoundError("no name")) is None and extra_of("numpy") is None


def test_every_extra_says_what_it_is_for():
    assert all(modules and meaning for modules, meaning in EXTRAS.values())
