"""What local descriptors are worth: accuracy and time of matching and of the transformer by their number, the same of
both images, more of the query than of a candidate, and in a cascade."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rrt.command_line.settings import Expected, FilePath, setting, settings
from rrt.errors import InputError
from rrt.evaluation.comparison import CompareSettings, compare
from rrt.files.atomic import write_json
from rrt.formats.ground_truth import chosen_protocol
from rrt.viz.style import LINE_STYLES, MARKERS, save_figure

_Counts = Annotated[
    list[Annotated[int, Field(ge=1)]], Field(min_length=1), Expected("a list of numbers, as [25, 50, 100]")
]


@settings()
class TokenSettings(CompareSettings):
    """Of tools/compare_tokens.py."""

    temp_dir: FilePath = setting("folder for the table, the image and the record of the run", default="logs/tokens")
    counts: _Counts = setting("local descriptors of an image", default=[25, 50, 100, 200, 350, 500])
    most: int = setting(
        "of the query where a candidate has fewer, and of the last member of a cascade", default=500, ge=1
    )
    num_first: int = setting("candidates of the first member of a cascade", default=100, ge=1)
    num_last: int = setting("candidates of its last member", default=25, ge=1)


def families(settings: TokenSettings) -> dict[str, dict[int, str]]:
    """{what is varied: {number of local descriptors: method}}."""
    names = ["maxsim"] + ["rrt"] * bool(settings.resume)
    most, first, last = settings.most, settings.num_first, settings.num_last
    counts = sorted(set(settings.counts))
    fewer = [count for count in counts if count < most]
    found: dict[str, dict[int, str]] = {}
    for name in names:
        found[f"{name}, as many of both"] = {count: f"{name}[local={count},num={first}]" for count in counts}
        found[f"{name}, {most} of the query"] = {
            count: f"{name}[query_local={most},gallery_local={count},num={first}]" for count in fewer
        }
    for before, after in [("maxsim", "maxsim")] + [(name, "rrt") for name in names] * bool(settings.resume):
        end = f"{after}[local={most},num={last}]"
        found[f"{before}, then {after} of {most} for {last}"] = {
            count: f"{before}[local={count},num={first}]+{end}" for count in fewer
        }
    return {family: methods for family, methods in found.items() if methods}


def compare_tokens(settings: TokenSettings) -> dict[str, Any]:
    """{"families": as ``families`` gives them, "rows": as ``compare`` gives them}. Writes
    tokens.json and tokens.png into temp_dir. Raises InputError before the long work."""
    if settings.methods is not None:
        raise InputError("setting methods: the methods are those of maxsim and rrt; give counts=, leave methods out")
    if settings.num_last > settings.num_first:
        raise InputError(f"setting num_last={settings.num_last}: more than num_first={settings.num_first}")
    groups = families(settings)
    rows = compare(replace(settings, methods=[method for group in groups.values() for method in group.values()]))
    found = {"families": groups, "rows": rows}
    folder = Path(settings.temp_dir)
    write_json(folder / "tokens.json", found)
    draw_tokens(found, folder / "tokens.png")
    return found


def draw_tokens(found: dict[str, Any], path: Path) -> None:
    """Medium mAP (classic: mAP) against milliseconds a query, a line for each family, its numbers beside the points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axis = figure.subplots()
    rows = {row["method"]: row for row in found["rows"]}
    protocol = chosen_protocol(found["rows"][0]["map"])
    for number, (family, methods) in enumerate(found["families"].items()):
        points = [(rows[method]["ms_per_query"], rows[method]["map"][protocol]) for method in methods.values()]
        style = {"marker": MARKERS[number], "linestyle": LINE_STYLES[number % len(LINE_STYLES)], "markersize": 5}
        axis.plot(*zip(*points), label=family, color=f"C{number}", **style)
        for count, point in zip(methods, points):
            axis.annotate(str(count), point, xytext=(3, 4), textcoords="offset points", fontsize=7, color=f"C{number}")
    axis.axhline(rows["global"]["map"][protocol], color="grey", linestyle="--", linewidth=0.9, label="global search")
    label = f"{protocol.capitalize()} mAP, %"
    axis.set(xscale="log", xlabel="milliseconds a query, search not counted", ylabel=label)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, title="numbers: local descriptors of a candidate", title_fontsize=8)
    save_figure(figure, path)
