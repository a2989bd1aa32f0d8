"""Settings as typed objects: a class of them is checked by pydantic when it is made, and what is wrong is one line.

    @settings("planted.")
    class PlantedSettings:
        min_local: int = setting("descriptors of a view at least", default=16, ge=1)

It is a frozen dataclass: ``asdict``, ``fields`` and ``replace`` work, and what holds between fields is checked in
``__post_init__``. A field of such a class itself takes a dictionary, too.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from rrt.errors import LARGEST_COUNT, LARGEST_NUMBER, InputError

Kind = TypeVar("Kind")


class Expected(str):
    """In ``Annotated``: what a setting must be, in words, where its type alone does not say it."""


Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
FilePath = Annotated[str | Path, Expected("the path of a file")]
_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "a text", dict: "a dict", Path: "a path"}
_NAMES |= {list: "a list", tuple: "a list", type(None): "None"}
_LIMITS = {"ge": "of at least {:g}", "gt": "above {:g}", "le": "of at most {:g}", "lt": "below {:g}"}


def setting(meaning: str = "", *, default: Any, name: str | None = None, **limits: Any) -> Any:
    """A field of a class of settings. meaning: what help says of it; name: on the command line, where it cannot be a
    name in Python; limits: ge, gt, le, lt of a number, as for ``pydantic.Field``."""
    if isinstance(default, list | dict):
        return Field(default_factory=lambda: type(default)(default), description=meaning, alias=name, **limits)
    return Field(default=default, description=meaning, alias=name, **limits)


@dataclass_transform(frozen_default=True, field_specifiers=(setting, Field))
def settings(prefix: str = "", of: str = "") -> Callable[[type[Kind]], type[Kind]]:
    """Makes a class one of settings, whose ``__init__`` raises InputError. prefix: of the names in errors; of: whose
    settings they are, with which an error begins."""

    def decorate(cls: type[Kind]) -> type[Kind]:
        config = ConfigDict(
            strict=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True, allow_inf_nan=False
        )
        made: Any = checked_dataclass(frozen=True, config=config)(cls)
        plain_init = made.__init__

        def __init__(self, *args, **kwargs):
            for name, field in made.__pydantic_fields__.items():
                if _is_settings(field.annotation) and isinstance(kwargs.get(name), dict):
                    kwargs[name] = field.annotation(**kwargs[name])
            try:
                plain_init(self, *args, **kwargs)
            except ValidationError as error:
                raise _input_error(error, made, args, kwargs, of, prefix) from None
            for name in made.__pydantic_fields__:
                value = getattr(self, name)
                largest = LARGEST_NUMBER if isinstance(value, float) else LARGEST_COUNT
                if isinstance(value, int | float) and abs(value) > largest:
                    raise InputError(f"{of}setting {prefix}{name}={value!r}: expected a number up to {largest:g}")

        made.__init__ = __init__
        return made

    return decorate


def described(kind: Any) -> dict[str, tuple[Any, str]]:
    """{setting as the command line names it: (default, meaning)} of the fields made by ``setting``, in their order."""
    found = {}
    for name, field in kind.__pydantic_fields__.items():
        if field.description is not None:
            default = field.get_default(call_default_factory=True)
            default = list(default) if isinstance(default, tuple) else default
            found[field.alias or name] = default, field.description
    return found


def _is_settings(annotation: Any) -> bool:
    return hasattr(annotation, "__pydantic_fields__")


def _input_error(error: ValidationError, kind: Any, args: tuple, kwargs: dict, of: str, prefix: str) -> InputError:
    wrong = error.errors()[0]
    cause = wrong.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    fields = kind.__pydantic_fields__
    given = dict(zip(fields, args)) | kwargs
    first = wrong["loc"][0]  # the position of an argument without a name, a field's name, or its name for users
    own = list(fields)[first] if isinstance(first, int) else first
    own = next((each for each, field in fields.items() if own in (each, field.alias)), None)
    if own is None:
        names = ", ".join(field.alias or each for each, field in fields.items())
        return InputError(f"{of}unknown setting '{first}'; known: {names}")
    name = fields[own].alias or own
    expected = _words(fields[own].annotation, fields[own].metadata)
    return InputError(f"{of}setting {prefix}{name}={given.get(own, given.get(name))!r}: {expected}")


def _words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a value of this type must be: `expected an integer of at least 1 or None`, `choose one of a, b`."""
    said, choices = _said(annotation, metadata)
    return f"choose one of {', '.join(map(str, choices))}" if choices else f"expected {said}"


def _said(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[str, tuple]:
    kinds, choices = [], ()
    for kind in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]:
        beside = list(metadata)
        if get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            beside += more
        expected = [each for each in beside if isinstance(each, Expected)]
        if get_origin(kind) is Literal and not expected:
            choices = get_args(kind)
        kinds += expected or [
            _NAMES.get(get_origin(kind) or kind, str(kind)) + (_limits(beside) if kind in (int, float) else "")
        ]
    return " or ".join(dict.fromkeys(kinds)), choices


def _limits(metadata: Iterable[Any]) -> str:
    """Of a number: ` of at least 1`, ` in 0..1`."""
    found: dict[str, Any] = {}
    for each in metadata:
        for limit in getattr(each, "metadata", [each]):
            found |= {name: getattr(limit, name) for name in _LIMITS if hasattr(limit, name)}
    if found.keys() == {"ge", "le"}:
        return f" in {found['ge']:g}..{found['le']:g}"
    return " and".join(f" {_LIMITS[name].format(limit)}" for name, limit in found.items())
