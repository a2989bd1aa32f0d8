"""Groups of near-duplicates as text, as JSON, and as an HTML page in one file."""

from __future__ import annotations

import base64

from rrt.files.names import shown
from rrt.photo_index.duplicates import Group, Member
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.report import json_text, saved_page

NOTE = "nothing was changed or deleted"


def as_text(groups: list[Group]) -> str:
    """A block for each group, with a line for each file, then a line about all groups."""
    lines = []
    for number, group in enumerate(groups, 1):
        lines.append(f"group {number}: {len(group.members)} files, {_megabytes(group.spare)} beside the first")
        for member in group.members:
            changes = f"  ({', '.join(member.changes)})" if member.changes else ""
            lines.append(f"  {_figures(member)}  {shown(member.path)}{changes}")
    return "\n".join([*lines, summary(groups)])


def summary(groups: list[Group]) -> str:
    """A line about all groups."""
    files = sum(len(group.members) for group in groups)
    spare = _megabytes(sum(group.spare for group in groups))
    return f"{len(groups):,} groups of {files:,} files, {spare} in copies; {NOTE}"


def _figures(member: Member) -> str:
    width, height = member.size
    return f"{f'{width} x {height}':>13}  {_megabytes(member.bytes):>9}  {member.date[:10]}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"


def as_json(index: PhotoIndex, groups: list[Group]) -> dict:
    """The groups as plain values for JSON."""
    return {"groups": [plain(index, group) for group in groups], "spare": sum(group.spare for group in groups)}


def plain(index: PhotoIndex, group: Group) -> dict:
    """A group as plain values; id: SHA-256 of the photograph."""
    members = [
        member._asdict() | {"path": json_text(member.path), "id": index.entries[member.number].content}
        for member in group.members
    ]
    for member in members:
        del member["number"]
    return {"spare": group.spare, "members": members}


def as_html(index: PhotoIndex, groups: list[Group]) -> str:
    """A page that needs no other file, because it contains the thumbnails."""

    def member_of(member: Member) -> dict:
        file = index.file_of(member.number)
        return {
            "jpeg": base64.b64encode(index.thumbnail(member.number) or b"").decode(),
            "address": file.parent.joinpath(file.name).as_uri() if file else "",
            "path": shown(member.path),
            "figures": _figures(member).strip(),
            "changes": ", ".join(member.changes),
        }

    return saved_page(
        "duplicates.html",
        title="Near-duplicates",
        summary=summary(groups),
        groups=[{"spare": _megabytes(group.spare), "members": map(member_of, group.members)} for group in groups],
    )
