"""Why two images match, or do not: what the reranking transformer attends to in them, beside the verified matches.

Every local descriptor that the network sees is a dot, coloured and sized by attention; the strongest links between the
two images are lines (``rrt.report.attention_maps``). Below stand the inliers of the reranker ``geometric``; of the
links, those that its transform explains are solid. Attention shows what the network looks at, not what decides: that is
why the two stand side by side.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from rrt.errors import InputError
from rrt.files.pictures import Box
from rrt.formats.ground_truth import GroundTruth, grades_of, load_ground_truth, query_boxes
from rrt.matching.matches import residuals
from rrt.network.checkpoint import check_sizes
from rrt.report.attention_maps import PairAttention, pair_attention, strongest_links
from rrt.report.stored_pictures import read_stored_picture, resolve
from rrt.rerankers.geometric import Correspondences, Geometric
from rrt.store.checked import read_globals
from rrt.store.store import Store
from rrt.viz.style import save_figure
from rrt.viz.two_pictures import (
    add_colour_bar,
    add_legend,
    connect,
    draw_matches,
    draw_pictures,
    rim,
    two_picture_figure,
)

ATTENTIONS = {
    "cls": "attention from CLS",
    "rollout": "attention rollout from CLS",
    "links": "attention to and from the other image",
}
LINKS = 30
LINK_COLOUR = "#ffd23f"  # light in grey print, too


@dataclass(frozen=True)
class AttentionView:
    """What of the attention is shown. attention: what colours the dots, of ATTENTIONS; layer, head: counted from 0,
    None = the last layer (for links all but the last) and the mean of all heads; links: number of lines; max_local:
    local descriptors of an image, None = as the reranker was trained."""

    attention: str = "cls"
    layer: int | None = None
    head: int | None = None
    links: int = LINKS
    max_local: int | None = None

    def __post_init__(self):
        if self.attention not in ATTENTIONS:
            raise InputError(f"attention {self.attention!r}: choose one of {', '.join(ATTENTIONS)}")
        for name, value, least in (("links", self.links, 0), ("max_local", self.max_local, 1)):
            if value is not None and value < least:
                raise InputError(f"{name} {value}: give {least} or more")


@dataclass(frozen=True)
class AttentionPanel:
    """Of query and candidate: points [n, 2] and values [n], the attention of each local descriptor in equal shares
    (1 = one T-th of a row); links int64 [k, 2], rows of the two, strongest first, with strengths [k]; agrees bool [k]:
    the verified transform explains the link, None where there is no transform."""

    points: tuple[np.ndarray, np.ndarray]
    values: tuple[np.ndarray, np.ndarray]
    links: np.ndarray
    strengths: np.ndarray
    agrees: np.ndarray | None


@dataclass(frozen=True)
class Pair:
    """A pair and everything drawn of it. names: of query and candidate in the store; pixels uint8 [H, W, 3] of both;
    numbers: {name: number or text}; panel, found: None where not asked for; colours: what the dots' colours mean."""

    names: tuple[str, str]
    pixels: list[np.ndarray]
    numbers: dict
    panel: AttentionPanel | None = None
    found: Correspondences | None = None
    colours: str = ""

    @property
    def title(self) -> str:
        return "query {} and candidate {}".format(*(Path(name).stem for name in self.names))

    @property
    def captions(self) -> list[str]:
        return [f"{what} {name}" for what, name in zip(("query", "candidate"), self.names)]


def explain_pair(
    store,
    query,
    candidate,
    image_dir,
    reranker=None,
    geometric: bool | Geometric = True,
    box: Box | None = None,
    ground_truth: GroundTruth | str | Path | None = None,
    view: AttentionView = AttentionView(),
) -> Pair:
    """Reads the images and computes what is drawn of them.

    store: ``rrt.Store`` or its path; query, candidate: names, stems or places; reranker: ``rrt.Reranker``; geometric:
    False or settings other than the default ones; box: the query's crop (x1, y1, x2, y2) in pixels, else that of the
    ground truth, which also says what the pair is. Raises InputError for what is missing or does not fit.
    """
    if isinstance(store, str | Path):
        with Store(store) as opened:
            return explain_pair(opened, query, candidate, image_dir, reranker, geometric, box, ground_truth, view)
    if reranker is None and not geometric:
        raise InputError("nothing to show of a pair: give a reranker, or geometric=True")
    places = [resolve(store, image) for image in (query, candidate)]
    names = tuple(store.names[place] for place in places)
    if isinstance(ground_truth, str | Path):
        ground_truth = load_ground_truth(ground_truth)
    boxes = [query_boxes(ground_truth).get(Path(name).stem) if ground_truth else None for name in names]
    boxes[0] = tuple(box) if box else boxes[0]
    pixels = [read_stored_picture(store, place, image_dir, crop) for place, crop in zip(places, boxes)]
    numbers = {"global cosine": float(np.dot(*read_globals(store, np.array(places))))} if store.global_dim else {}
    if ground_truth and (grade := grade_of(ground_truth, *names)):
        numbers["ground truth"] = grade
    found, explains = None, None
    if geometric:
        method = geometric if isinstance(geometric, Geometric) else Geometric()
        found = method.correspondences(store, *places)
        numbers |= {"inliers": int(found.inliers.sum()), "matches": len(found.inliers)}
        if found.transform is not None:

            def explains(query_points, candidate_points):
                return residuals(found.transform, candidate_points, query_points) <= method.threshold

    if reranker is None:
        return Pair(names, pixels, numbers, found=found)
    check_sizes(store, reranker.model.settings, reranker.checkpoint)
    max_local = view.max_local or reranker.max_local
    attention = pair_attention(reranker.model, store, *places, max_local, reranker.binning)
    panel = make_panel(attention, [store.read(place, max_local).keypoints for place in places], view, explains)
    numbers = {"logit": attention.logit, "probability": float(expit(attention.logit))} | numbers
    if panel.agrees is not None:
        numbers |= {"links": len(panel.links), "links the transform explains": int(panel.agrees.sum())}
    return Pair(names, pixels, numbers, panel, found, describe_view(view, attention))


def make_panel(attention: PairAttention, points, view: AttentionView, explains=None) -> AttentionPanel:
    """What is drawn of a pair's attention. points [n, 2] of query and candidate; explains(query points, candidate
    points)
    -> bool [k]: whether a transform found otherwise agrees, None = there is none."""
    mutual = attention.mutual(view.layer, view.head)
    if view.attention == "links":
        values = [mutual.sum(axis) / max(1, mutual.shape[axis]) for axis in (1, 0)]
    else:
        row = attention.rollout(view.head) if view.attention == "rollout" else attention.from_cls(view.layer, view.head)
        values = [row[attention.query], row[attention.candidate]]
    links = strongest_links(mutual, view.links)
    ends = [side[rows] for side, rows in zip(points, links.T)]
    shares = attention.weights.shape[-1]
    return AttentionPanel(
        tuple(points),
        tuple(shares * side for side in values),
        links,
        mutual[tuple(links.T)],
        None if explains is None else explains(*ends),
    )


def describe_view(view: AttentionView, attention: PairAttention) -> str:
    """What the colours of the dots mean, with layer and head, for the colour bar."""
    layers, heads = attention.weights.shape[:2]
    head = f"mean of {heads} heads" if view.head is None else f"head {view.head}"
    if view.attention == "rollout":
        layer = f"{layers} layers"
    elif view.attention == "cls" or view.layer is not None:
        layer = f"layer {layers - 1 if view.layer is None else view.layer}"
    else:
        layer = f"mean of layers 0 to {max(0, layers - 2)}"
    return (
        f"{ATTENTIONS[view.attention]}, {layer}, {head}\n(1 = an equal share of {attention.weights.shape[-1]} tokens)"
    )


def grade_of(ground_truth: GroundTruth, query: str, candidate: str) -> str | None:
    """The grade (easy, hard, junk, ...) of a candidate for a query, "different" for one that has none; None where one
    of the two names is not in the ground truth. Names or file stems."""
    stems = [[Path(name).stem for name in names] for names in (ground_truth.qimlist, ground_truth.imlist)]
    wanted = [Path(name).stem for name in (query, candidate)]
    if not all(name in known for name, known in zip(wanted, stems)):
        return None
    row, position = (known.index(name) for name, known in zip(wanted, stems))
    entry = ground_truth.gnd[row]
    return next((grade for grade in grades_of(entry) if position in entry[grade]), "different")


# ---- drawing ---------------------------------------------------------------------------------------------------------


def draw_attention(figure, pair: Pair, place: int, title: str) -> None:
    """The dots and links of a pair as a panel of a ``two_picture_figure``."""
    panel = pair.panel
    axes = draw_pictures(figure, pair.pixels, pair.captions, place, title, grey=True)
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

    kinds = {True: ("-", "link, one of the strongest")}
    if panel.agrees is not None:
        kinds = {True: ("-", "link that the verified transform explains"), False: ((0, (1, 1.5)), "other link")}
    agrees = [True] * len(panel.links) if panel.agrees is None else panel.agrees.tolist()
    widths = 0.6 + 2.4 * panel.strengths / panel.strengths[0]
    ends = [points[rows] for points, rows in zip(panel.points, panel.links.T)]
    # The strongest last, in front.
    connect(
        figure,
        axes,
        *(side[::-1] for side in ends),
        LINK_COLOUR,
        widths[::-1],
        [kinds[agree][0] for agree in agrees[::-1]],
    )
    style = {"color": LINK_COLOUR, "linewidth": 2.4, "path_effects": rim(2.4)}
    handles = [
        Line2D([], [], linestyle=line, label=f"{label} ({agrees.count(kind)})", **style)
        for kind, (line, label) in kinds.items()
    ]
    add_legend(figure, axes, [*handles, Line2D([], [], linestyle="", label="the wider, the stronger")])


def draw_inliers(figure, pair: Pair, place: int, title: str) -> None:
    """The verified matches of a pair as a panel of a ``two_picture_figure``."""
    found = pair.found
    ends = found.query_points[found.inliers], found.candidate_points[found.inliers]
    draw_matches(figure, pair.pixels, pair.captions, *ends, place, title)


_PANELS = {
    "attention": ("What the reranking transformer attends to", draw_attention, "panel"),
    "geometry": ("Matches that one plane transform explains (reranker geometric)", draw_inliers, "found"),
}


def draw_pair(pair: Pair, parts=tuple(_PANELS)):
    """A ``matplotlib.figure.Figure`` of the panels (``attention``, ``geometry``) that the pair has, one below the
    other."""
    parts = [_PANELS[part] for part in parts if getattr(pair, _PANELS[part][2]) is not None]
    figure = two_picture_figure(pair.pixels, f"{pair.title}\n{describe_numbers(pair.numbers)}", len(parts))
    for place, (title, draw, _) in enumerate(parts[::-1]):
        draw(figure, pair, place, title)
    return figure


def describe_numbers(numbers: dict) -> str:
    """The numbers of a pair in a line."""
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )


def write_pair(
    folder,
    store,
    query_name,
    candidate_name,
    image_dir,
    reranker=None,
    geometric=True,
    *,
    box=None,
    ground_truth=None,
    view: AttentionView = AttentionView(),
    prefix: str | None = None,
) -> dict:
    """Writes a PNG for each panel of a pair into the folder and returns what a page needs of them:

        {"images": [{"file": name in the folder, "title": text, "caption": text}], "numbers": {name: number or text}}

    The arguments of ``explain_pair``; prefix: of the files' names, None = from the places of the two in the store.
    """
    if isinstance(store, str | Path):
        with Store(store) as opened:
            return write_pair(
                folder,
                opened,
                query_name,
                candidate_name,
                image_dir,
                reranker,
                geometric,
                box=box,
                ground_truth=ground_truth,
                view=view,
                prefix=prefix,
            )
    pair = explain_pair(store, query_name, candidate_name, image_dir, reranker, geometric, box, ground_truth, view)
    prefix = prefix or "pair_{}_{}".format(*(store.index(name) for name in pair.names))
    pictures = []
    for part, (title, _, needed) in _PANELS.items():
        if getattr(pair, needed) is not None:
            file = save_figure(draw_pair(pair, [part]), Path(folder) / f"{prefix}_{part}.png")
            pictures.append({"file": file.name, "title": title, "caption": caption(pair, part)})
    return {"pictures": pictures, "numbers": pair.numbers}


def caption(pair: Pair, part: str) -> str:
    """A sentence or two on how to read a panel."""
    if part == "geometry":
        return "{inliers} of {matches} matches of local descriptors agree with one plane transform.".format(
            **pair.numbers
        )
    meaning = pair.colours.replace("\n", " ")
    text = f"Each dot is a local descriptor; the brighter and larger, the more {meaning}."
    if len(pair.panel.links):
        text += (
            f" Lines are the {len(pair.panel.links)} strongest links, local descriptors that attend to each other "
            "across the pair."
        )
    if pair.panel.agrees is not None:
        text += (
            f" {int(pair.panel.agrees.sum())} of them, drawn solid, agree with the transform of the verified matches."
        )
    return text
