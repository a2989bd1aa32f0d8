"""Why two images match, or do not: what the reranking transformer attends to in them, beside the verified matches.

Every local descriptor that the network sees is a dot, coloured and sized by attention; the strongest links between the
two images are lines (``rrt.report.attention_maps``). Below stand the inliers of the reranker ``geometric``; of the
links, those that its transform explains are solid. Attention shows what the network looks at, not what decides: that is
why the two stand side by side. Of a ``LATE`` the dots are the descriptors' weights and the lines its matches, which are
what decides (``rrt.report.late_matches``).
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.calibration import fitting, sigmoid
from rrt.errors import InputError, check_least
from rrt.files.images import Box
from rrt.files.names import ImageNames
from rrt.formats.ground_truth import GroundTruth, grades_of, load_ground_truth, pixel_box
from rrt.matching.matches import residuals
from rrt.network.checkpoint import check_sizes
from rrt.network.late import LATE
from rrt.network.reranker import Reranker
from rrt.report.attention_maps import PairAttention, pair_attention, strongest_links
from rrt.report.late_matches import PairMatches, pair_matches
from rrt.report.stored_images import read_stored_image, resolve
from rrt.rerankers.geometric import Correspondences, Geometric
from rrt.rerankers.shipped import probability_of_pair
from rrt.store.checked import read_globals
from rrt.store.memory import MemoryStore
from rrt.store.store import Store

# (points of the query [k, 2], of the candidate [k, 2]) -> bool [k]: a transform explains that they lie on each other
Agreement = Callable[[np.ndarray, np.ndarray], np.ndarray]
ATTENTIONS = {
    "cls": "attention from CLS",
    "rollout": "attention rollout from CLS",
    "links": "attention to and from the other image",
}
LINKS = 30


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
            check_least(name, value, least)


DEFAULT_VIEW = AttentionView()


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
class PanelKind:
    """heading: of the panel; links: what its lines are."""

    heading: str
    links: str


ATTENTION = PanelKind(
    "What the reranking transformer attends to",
    "strongest links, local descriptors that attend to each other across the pair",
)
MATCHES = PanelKind(
    "What the late-interaction transformer matches",
    "strongest matches, by what they add to the similarity of the two images",
)


@dataclass(frozen=True)
class Pair:
    """A pair and everything drawn of it. names: of query and candidate in the store; pixels uint8 [H, W, 3] of both;
    numbers: {name: number or text}; panel, found: None where not asked for; colours: what the dots' colours mean;
    kind: what the panel shows."""

    names: tuple[str, str]
    pixels: list[np.ndarray]
    numbers: dict[str, float | str]
    panel: AttentionPanel | None = None
    found: Correspondences | None = None
    colours: str = ""
    kind: PanelKind = ATTENTION

    @property
    def title(self) -> str:
        """The two file stems, as the first line of a figure."""
        return "query {} and candidate {}".format(*(Path(name).stem for name in self.names))

    @property
    def captions(self) -> list[str]:
        """What stands above each of the two images."""
        return [f"{what} {name}" for what, name in zip(("query", "candidate"), self.names)]


def explain_pair(
    store: Store | str | Path,
    query: str | int,
    candidate: str | int,
    image_dir: str | Path,
    reranker: Reranker | None = None,
    geometric: bool | Geometric = True,
    box: Box | None = None,
    ground_truth: GroundTruth | str | Path | None = None,
    view: AttentionView = DEFAULT_VIEW,
    query_store: Store | None = None,
) -> Pair:
    """Read the two images and compute what is drawn of them.

    store: or its path; query, candidate: names, file stems or indices in it; query_store: where queries lie apart, in
    which a name of the query is looked for first; geometric: False, or settings other than
    the default ones; box: the query's crop (x1, y1, x2, y2) in pixels of the whole image, None = that of the ground
    truth, which also says how the candidate is graded. Raises InputError for what is missing or does not fit.
    """
    if reranker is None and not geometric:
        raise InputError("nothing to show of a pair: give a reranker, or geometric=True")
    with Store(store) if isinstance(store, str | Path) else nullcontext(store) as opened:
        return _explain(
            *_in_one_store(opened, query_store, query, candidate),
            *(image_dir, reranker, geometric, box, ground_truth, view),
        )


def _in_one_store(store, query_store, query, candidate):
    """(store, query, candidate) where they lie in two, which may both hold an image of one name: in memory."""
    if query_store is None or query_store.path == store.path or isinstance(query, int) or query not in query_store:
        return store, query, candidate
    pair = MemoryStore.of([query_store[query], store[resolve(store, candidate)]])
    pair.config = store.config
    return pair, 0, 1


def _explain(store, query, candidate, image_dir, reranker, geometric, box, ground_truth, view) -> Pair:
    indices = resolve(store, query), resolve(store, candidate)
    names = store.names[indices[0]], store.names[indices[1]]
    truth = load_ground_truth(ground_truth) if isinstance(ground_truth, str | Path) else ground_truth
    boxes = [_box_of(truth, name) if truth else None for name in names]
    crops = box or boxes[0], boxes[1]
    pixels = [read_stored_image(store, index, image_dir, crop) for index, crop in zip(indices, crops)]
    numbers: dict[str, float | str] = {}
    if store.global_dim:
        numbers["global cosine"] = float(np.dot(*read_globals(store, np.array(indices))))
    if truth and (grade := grade_of(truth, *names)):
        numbers["ground truth"] = grade
    if (probability := probability_of_pair(store[indices[0]], store[indices[1]], store.config)) is not None:
        numbers["probability by search"] = probability
    found, explains = None, None
    if geometric:
        method = geometric if isinstance(geometric, Geometric) else Geometric()
        found = method.correspondences(store, *indices)
        numbers |= {"inliers": int(found.inliers.sum()), "matches": len(found.inliers)}
        explains = _agreement_with(found.transform, method.threshold)
    if reranker is None:
        return Pair(names, pixels, numbers, found=found)
    check_sizes(store, reranker.model.settings, reranker.checkpoint)
    max_local = view.max_local or reranker.max_local
    points = store.read(indices[0], max_local).keypoints, store.read(indices[1], max_local).keypoints
    late = isinstance(reranker.model, LATE)
    find = pair_matches if late else pair_attention
    shown = find(reranker.model, store, *indices, max_local, reranker.binning)
    if isinstance(shown, PairMatches):
        panel, colours = make_match_panel(shown, points, view, explains), "weight\n(1 = an equal share of its image)"
    else:
        panel, colours = make_panel(shown, points, view, explains), describe_view(view, shown)
    scored = reranker.scored_as(query_local=max_local, gallery_local=max_local)
    calibration = fitting(reranker.calibrations, [scored])
    # The network is trained on as many right pairs as wrong ones, and sure of all of them.
    name, probability = ("probability", calibration) if calibration else ("sigmoid", sigmoid)
    numbers = {"logit": shown.logit, name: float(probability(shown.logit))} | numbers
    if panel.agrees is not None:
        numbers |= {"links": len(panel.links), "links the transform explains": int(panel.agrees.sum())}
    return Pair(names, pixels, numbers, panel, found, colours, MATCHES if late else ATTENTION)


def _agreement_with(transform: np.ndarray | None, threshold: float) -> Agreement | None:
    """Whether the transform from candidate to query brings points of the candidate within ``threshold`` pixels of
    those of the query; None without a transform."""
    if transform is None:
        return None
    return lambda query_points, candidate_points: residuals(transform, candidate_points, query_points) <= threshold


def make_panel(
    attention: PairAttention,
    points: tuple[np.ndarray, np.ndarray],
    view: AttentionView,
    explains: Agreement | None = None,
) -> AttentionPanel:
    """What is drawn of a pair's attention. points: [n, 2] of query and candidate; explains: whether a transform found
    otherwise agrees with links, None = there is none."""
    mutual = attention.mutual(view.layer, view.head)
    if view.attention == "links":
        values = mutual.sum(1) / max(1, mutual.shape[1]), mutual.sum(0) / max(1, mutual.shape[0])
    else:
        row = attention.rollout(view.head) if view.attention == "rollout" else attention.from_cls(view.layer, view.head)
        values = row[attention.query], row[attention.candidate]
    # In equal shares: 1 is what each of the T tokens would get.
    shares = attention.weights.shape[-1]
    return _panel(points, (shares * values[0], shares * values[1]), mutual, view, explains)


def make_match_panel(
    matches: PairMatches, points: tuple[np.ndarray, np.ndarray], view: AttentionView, explains: Agreement | None = None
) -> AttentionPanel:
    """What is drawn of a pair's weighted matches. InputError for what only attention has."""
    for name, value, plain in (
        ("attention", view.attention, "cls"),
        ("layer", view.layer, None),
        ("head", view.head, None),
    ):
        if value != plain:
            raise InputError(
                f"{name} {value}: is of model.RRT; of a model.LATE weights and matches are drawn, leave it out"
            )
    return _panel(points, matches.shares, matches.strengths, view, explains)


def _panel(points, values, strengths, view, explains) -> AttentionPanel:
    links = strongest_links(strengths, view.links)
    agrees = explains(points[0][links[:, 0]], points[1][links[:, 1]]) if explains else None
    return AttentionPanel(points, values, links, strengths[links[:, 0], links[:, 1]], agrees)


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


def _box_of(truth: GroundTruth, name: str) -> Box | None:
    row = ImageNames(truth.qimlist).find(name)
    return None if row is None else pixel_box(truth.gnd[row])


def grade_of(ground_truth: GroundTruth, query: str, candidate: str) -> str | None:
    """The grade (easy, hard, junk, ...) of a candidate for a query, "different" for one that has none; None where one
    of the two names is not in the ground truth. Names or file stems."""
    row, position = ImageNames(ground_truth.qimlist).find(query), ImageNames(ground_truth.imlist).find(candidate)
    if row is None or position is None:
        return None
    entry = ground_truth.gnd[row]
    return next((grade for grade in grades_of(entry) if position in entry[grade]), "different")


def describe_numbers(numbers: dict) -> str:
    """The numbers of a pair in a line."""
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )
