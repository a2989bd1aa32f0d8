"""Rows of text as tables in Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def padded(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, readable as plain text, of a header and rows; the first ``left`` columns begin at the left, the
    others end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "| " + " | ".join(f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(line)) + " |"
        for line in lines
    )


def as_lines(rows: Iterable[Sequence[str]]) -> str:
    """Lines of a Markdown table."""
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """The rows as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
