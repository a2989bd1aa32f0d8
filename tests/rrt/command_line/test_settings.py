"""Settings as typed objects (rrt/command_line/settings.py)."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Strict

from rrt.command_line.settings import FilePath, described, setting, settings
from rrt.errors import InputError


@settings("inner.")
class Inner:
    k: int = setting("how many", default=3, ge=1)


@settings()
class Typed:
    count: int | None = setting("number of things", default=1, ge=1)
    rate: float = 0.5
    on: bool = False
    name: str = "x"
    steps: Annotated[tuple, Strict(False)] = setting(default=(1, 2))
    weight: float = setting("share", default=0.0, name="lambda", ge=0, le=1)
    colour: Literal["red", "blue"] | None = None
    file: FilePath | None = None
    cuts: list[int] = setting("cut-offs", default=[1, 5])
    inner: Inner = Inner()

    def __post_init__(self):
        if self.on and not self.name:
            raise InputError("on needs a name")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"count": True}, "setting count=True: expected an integer of at least 1 or None"),
        ({"count": 0}, "setting count=0: expected an integer of at least 1 or None"),
        ({"rate": "1"}, "setting rate='1': expected a number"),
        ({"on": 1}, "setting on=1: expected True or False"),
        ({"name": None}, "setting name=None: expected a text"),
        ({"steps": 3}, "setting steps=3: expected a list"),
        ({"lambda": 1.5}, "setting lambda=1.5: expected a number in 0..1"),
        ({"weight": -1}, "setting lambda=-1: expected a number in 0..1"),
        ({"colour": "green"}, "setting colour='green': choose one of red, blue"),
        ({"file": 5}, "setting file=5: expected the path of a file or None"),
        ({"cuts": [1, "x"]}, "setting cuts=[1, 'x']: expected a list"),
        ({"inner": {"k": 0}}, "setting inner.k=0: expected an integer of at least 1"),
        ({"inner": {"n": 0}}, "unknown setting 'n'; known: k"),
        (
            {"counts": 0},
            "unknown setting 'counts'; known: count, rate, on, name, steps, lambda, colour, file, cuts, inner",
        ),
        ({"on": True, "name": ""}, "on needs a name"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_name_for_users(values, message):
    with pytest.raises(InputError) as caught:
        Typed(**values)
    assert str(caught.value) == message


def test_settings_of_their_types_are_a_frozen_dataclass():
    made = Typed(None, 1, True, "y", [1, 2], **{"lambda": 1}, file=Path("a"), inner={"k": 7})
    assert (made.count, made.rate, made.steps, made.weight, made.inner) == (None, 1.0, (1, 2), 1.0, Inner(7))
    assert asdict(made)["inner"] == {"k": 7} and replace(made, weight=0.5).weight == 0.5
    with pytest.raises(AttributeError):
        made.count = 5
    with pytest.raises(InputError, match="setting count='many'"):
        replace(made, count="many")
    with pytest.raises(InputError, match="setting count='many'"):
        Typed("many")
    assert Typed().cuts is not Typed().cuts


def test_defaults_and_meanings_are_told_by_the_names_for_users():
    told = described(Typed)
    assert told == {
        "count": (1, "number of things"),
        "steps": ([1, 2], ""),
        "lambda": (0.0, "share"),
        "cuts": ([1, 5], "cut-offs"),
    }
