"""Chains of methods as people write them: names with + between them, the settings of each in brackets behind it.

    maxsim[num=400]+geometric[num=50,geometry=homography]
    rrt[local=50,num=400]+rrt[local=500,num=50]

A value is a Python literal, or else the text itself; quotes keep commas, brackets and + in it. Two settings
belong to the position in the chain: num, the candidates reordered there (else the method's own number), and local,
the local descriptors of an image, whatever the method calls them (query_local=, gallery_local= where the sides differ).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from rrt.errors import InputError

_OPENING, _CLOSING, _QUOTES = "[({", "])}", "'\""


@dataclass(frozen=True)
class Member:
    """A method in a chain. text: as it was written; settings {setting: value}: those of the brackets but ``num``."""

    text: str
    name: str
    num: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_chain(text: str) -> list[Member]:
    """The members of a chain, one for a single method. Raises InputError that names the member."""
    return [_member(part.strip()) for part in _split(text, "+", f"reranker '{text}'")]


def _member(text: str) -> Member:
    where = f"reranker '{text}'"
    name, bracket, rest = text.partition("[")
    if not bracket:
        return Member(text, name)
    if not rest.endswith("]"):
        raise InputError(f"{where}: expected NAME[setting=value,setting=value]")
    given: dict[str, Any] = {}
    for part in _split(rest[:-1], ",", where):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key.isidentifier() or not value:
            raise InputError(f"{where}: '{part.strip()}' in the brackets: expected setting=value")
        if key in given:
            raise InputError(f"{where}: {key} is set twice; set it once")
        given[key] = _value(value)
    num = given.pop("num", None)
    if num is not None and (not isinstance(num, int) or isinstance(num, bool) or num < 1):
        raise InputError(f"{where}: num={num!r}: expected a number of candidates of at least 1")
    return Member(text, name.strip(), num, given)


def _split(text: str, separator: str, where: str) -> list[str]:
    """The parts between separators outside brackets and quotes."""
    parts, expected, quote = [""], [], ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING:
            expected.append(_CLOSING[_OPENING.index(letter)])
        elif letter in _CLOSING and (not expected or expected.pop() != letter):
            raise InputError(f"{where}: a '{letter}' that nothing opens; write NAME[setting=value]+NAME")
        if letter == separator and not quote and not expected:
            parts.append("")
        else:
            parts[-1] += letter
    if quote or expected:
        raise InputError(f"{where}: a {quote or expected[-1]} is missing; write NAME[setting=value]+NAME")
    return parts


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
