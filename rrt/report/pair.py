"""Drawings of why two images match, or do not.

Every local descriptor that the network sees is a dot, coloured and sized by attention; the strongest links between the
two images are lines, solid where the verified transform agrees. Below stand the inliers of the reranker ``geometric``.
What is drawn is computed by rrt.report.explanation.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rrt.report.explanation import AttentionPanel, Pair, describe_numbers, explain_pair
from rrt.store.store import Store
from rrt.viz.style import save_figure
from rrt.viz.two_images import add_colour_bar, add_legend, connect, draw_images, draw_matches, rim, two_image_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINK_COLOUR = "#ffd23f"  # light in grey print, too


def draw_attention(figure: Figure, pair: Pair, row: int, title: str) -> None:
    """The dots and links of a pair as a panel of a ``two_image_figure``, row 0 the lowest."""
    panel = pair.panel
    assert panel is not None
    axes = draw_images(figure, pair.pixels, pair.captions, row, title, grey=True)
    largest = max([float(side.max(initial=0)) for side in panel.values] + [1e-6])
    for axis, points, values in zip(axes, panel.points, panel.values):
        order = np.argsort(values)  # strong ones in front
        dots = axis.scatter(
            *points[order].T,
            s=14 + 86 * values[order] / largest,
            c=values[order],
            cmap="viridis",
            vmin=0,
            vmax=largest,
            edgecolors="black",
            linewidths=0.4,
        )
        if not len(points):
            axis.text(
                0.5, 0.5, "no local descriptors", transform=axis.transAxes, ha="center", color="white", fontsize=14
            )
    add_colour_bar(figure, axes, dots, pair.colours)
    if len(panel.links):
        _draw_links(figure, axes, panel)


def _draw_links(figure, axes, panel: AttentionPanel) -> None:
    from matplotlib.lines import Line2D

    dotted = (0, (1, 1.5))
    if panel.agrees is None:
        agrees, kinds = np.ones(len(panel.links), bool), {True: "link, one of the strongest"}
    else:
        agrees, kinds = panel.agrees, {True: "link that the verified transform explains", False: "other link"}
    # The strongest last, in front.
    links, strengths = panel.links[::-1], panel.strengths[::-1]
    points, others = panel.points[0][links[:, 0]], panel.points[1][links[:, 1]]
    widths = 0.6 + 2.4 * strengths / strengths[-1]
    connect(figure, axes, points, others, LINK_COLOUR, widths, ["-" if agree else dotted for agree in agrees[::-1]])
    handles = []
    for kind, label in kinds.items():
        label, line = f"{label} ({np.count_nonzero(agrees == kind)})", "-" if kind else dotted
        handles.append(
            Line2D([], [], color=LINK_COLOUR, linewidth=2.4, linestyle=line, label=label, path_effects=rim(2.4))
        )
    add_legend(figure, axes, [*handles, Line2D([], [], linestyle="", label="the wider, the stronger")])


def draw_inliers(figure: Figure, pair: Pair, row: int, title: str) -> None:
    """The verified matches of a pair as a panel of a ``two_image_figure``, row 0 the lowest."""
    found = pair.found
    assert found is not None
    points, others = found.query_points[found.inliers], found.candidate_points[found.inliers]
    draw_matches(figure, pair.pixels, pair.captions, points, others, row, title)


_PANELS = {
    "attention": (lambda pair: pair.kind.heading, draw_attention),
    "geometry": (lambda pair: "Matches that one plane transform explains (reranker geometric)", draw_inliers),
}


def has_panel(pair: Pair, part: str) -> bool:
    """Whether ``attention`` or ``geometry`` of the pair was computed."""
    return (pair.panel if part == "attention" else pair.found) is not None


def draw_pair(pair: Pair, parts=tuple(_PANELS)) -> Figure:
    """A figure of the panels (``attention``, ``geometry``) that the pair has, one below the other."""
    panels = [_PANELS[part] for part in parts if has_panel(pair, part)]
    figure = two_image_figure(pair.pixels, f"{pair.title}\n{describe_numbers(pair.numbers)}", len(panels))
    for row, (title, draw) in enumerate(panels[::-1]):
        draw(figure, pair, row, title(pair))
    return figure


def write_pair(
    folder: str | Path,
    store: Store | str | Path,
    *shown,
    prefix: str | None = None,
    query_store: Store | None = None,
    **options,
) -> dict:
    """Write a PNG for each panel of a pair into the folder and return what a page needs of them:

        {"images": [{"file": name in the folder, "title": text, "caption": text}], "numbers": {name: number or text}}

    store, query_store, shown, options: the arguments of ``explain_pair``; prefix: of the files' names, None = from the
    indices of the two in their stores.
    """
    with Store(store) if isinstance(store, str | Path) else nullcontext(store) as opened:
        pair = explain_pair(opened, *shown, query_store=query_store, **options)
        stores = query_store if query_store and pair.names[0] in query_store else opened, opened
        prefix = prefix or "pair_{}_{}".format(*(each.index(name) for each, name in zip(stores, pair.names)))
    images = []
    for part, (title, _) in _PANELS.items():
        if has_panel(pair, part):
            file = save_figure(draw_pair(pair, [part]), Path(folder) / f"{prefix}_{part}.png")
            images.append({"file": file.name, "title": title(pair), "caption": caption(pair, part)})
    return {"images": images, "numbers": pair.numbers}


def caption(pair: Pair, part: str) -> str:
    """One to three sentences on how to read a panel of the pair."""
    if part == "geometry":
        inliers, matches = pair.numbers["inliers"], pair.numbers["matches"]
        return f"{inliers} of {matches} matches of local descriptors agree with one plane transform."
    meaning = pair.colours.replace("\n", " ")
    sentences = [f"Each dot is a local descriptor; the brighter and larger, the more {meaning}."]
    assert pair.panel is not None
    if count := len(pair.panel.links):
        sentences.append(f"Lines are the {count} {pair.kind.links}.")
    if pair.panel.agrees is not None:
        solid = int(pair.panel.agrees.sum())
        sentences.append(f"{solid} of them, drawn solid, agree with the transform of the verified matches.")
    return " ".join(sentences)
