"""What teaches the network without labels: the scores that other rerankers give to pairs of a training list.

Each query of an image list has a pool of candidates: images near by global similarity, random ones, itself, and, in a
list of made views (tools/make_views.py), the other views of its photograph. The teacher scores them once, with all
their descriptors; the network, which sees few, learns to give the same (rrt/training/distillation.py). No label is
looked at but that of made views, which says of which photograph a view is.

Pools and scores are kept beside the store, in files that say what they were made from; a run that was stopped goes on
after the last finished block.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rrt.datasets.sets import TrainSet, neighbors_path
from rrt.errors import InputError
from rrt.files.arrays import load_npz
from rrt.files.atomic import atomic_path, guard_settings, parse_json
from rrt.progress import bar
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist
from rrt.rerankers.build import ConfiguredMethod, all_default_settings, configure
from rrt.rerankers.chain import Chain
from rrt.search.table import check_origin, describe_origin, load_neighbors
from rrt.store.checked import read_globals
from rrt.store.linear import l2_normalize
from rrt.training.pools import ITSELF, Lesson, Pool, make_pool

# Settings of methods as teachers, where they are not the defaults: matches of both directions count.
SETTINGS: dict[str, dict[str, Any]] = {"maxsim": {"symmetric": True}}
# Of a teacher that is a network; the file follows.
CHECKPOINT = "checkpoint:"
# Queries scored, and saved, at a time.
_BLOCK = 128
# Settings of methods that change no score.
_NO_MATTER = ("device", "threads")


def make_lessons(lists: list[TrainSet], view_lists: list[TrainSet], settings, cpu: bool = False) -> list[Lesson]:
    """The lessons of every list in turn, view lists last, scored as far as no file has them already.

    settings: ``rrt.training.distillation.DistilSettings``; cpu: for methods that would take a GPU. Raises InputError
    for a teacher that is none, and for lists that are too small.
    """
    parts = read_teacher(settings.teacher)
    pools, scores, origins = [], [], []
    for images in [*lists, *view_lists]:
        space = SearchSpace(images.store, images.index, images.index)
        views = images.labels if any(images is each for each in view_lists) else None
        pool, made_from = _kept_pool(images, space, views, settings)
        pools.append(pool)
        scores.append([_kept_scores(images, space, pool, made_from, name, cpu) for _, name in parts])
        origins.append(_digest(json.dumps([made_from, parts], sort_keys=True).encode()))
    ordinary = [pool.kinds != ITSELF for pool in pools]
    targets = blend([list(part) for part in zip(*scores)], [weight for weight, _ in parts], ordinary)
    return [Lesson(*each) for each in zip(pools, targets, origins, strict=True)]


def read_teacher(text: str) -> list[tuple[float, str]]:
    """The parts of a teacher, each a weight and a name: a method, a chain as ``maxsim+database_augmentation``,
    ``global`` (the global similarity), ``checkpoint:FILE`` (a network that was trained before), or a blend as
    ``0.6*maxsim+0.4*global``. Raises InputError naming what is wrong.
    """
    parts = []
    for part in text.split("+") if "*" in text else [f"1*{text}"]:
        weight, _, name = part.partition("*")
        try:
            parts.append((float(weight), name.strip()))
        except ValueError:
            parts.append((float("nan"), name))
        if not 0 < parts[-1][0] < np.inf:
            raise InputError(
                f"distil.teacher={text}: {part.strip()!r} is no part of a blend; give every part a weight above 0, as"
                " 0.6*maxsim+0.4*global, or none at all for a chain"
            )
    for _, name in parts:
        if name != "global":
            teaching_method(name, cpu=True)
    return parts


def teaching_method(name: str, cpu: bool = False) -> RerankMethod:
    """The method or chain of a name, or the network of a checkpoint, on the descriptors it was trained with. Raises
    InputError for one that does not exist, and for ``rrt``."""
    if name.startswith(CHECKPOINT):
        from rrt.network.reranker import Reranker
        from rrt.rerankers.transformer import Transformer

        reranker = Reranker.from_checkpoint(name.removeprefix(CHECKPOINT), device="cpu" if cpu else None)
        return Transformer(reranker)
    return _configured(name, cpu).method()


def _identity(name: str, cpu: bool) -> dict:
    """What a teacher's scores depend on beside the descriptors."""
    if name.startswith(CHECKPOINT):
        from rrt.network.checkpoint import load_checkpoint

        return {"teacher": CHECKPOINT, "sha256": load_checkpoint(name.removeprefix(CHECKPOINT)).sha256}
    settings = _configured(name, cpu).settings
    of_methods = {
        each: {key: value for key, value in given.items() if key not in _NO_MATTER} for each, given in settings.items()
    }
    return {"teacher": name, "methods": of_methods}


def _configured(name: str, cpu: bool) -> ConfiguredMethod:
    settings = {each: given | SETTINGS.get(each, {}) for each, given in all_default_settings().items()}
    configured = configure(name, settings, cpu=cpu)
    assert configured is not None
    return configured


def blend(parts: list[list[np.ndarray]], weights: list[float], ordinary: list[np.ndarray]) -> list[np.ndarray]:
    """The targets of each list, float32 [Q, P], of its scores [Q, P] by each part of the teacher: their weighted sum,
    each part standardised before, the sum after, over the ``ordinary`` columns (bool [P]) of all lists together. NaN is
    left out and stays."""
    total = [np.zeros(scores.shape) for scores in parts[0]]
    for lists, weight in zip(parts, weights, strict=True):
        for target, scores in zip(total, _standardised(lists, ordinary), strict=True):
            target += weight * scores
    return [scores.astype(np.float32) for scores in _standardised(total, ordinary)]


def _standardised(lists, ordinary):
    values = np.concatenate([scores[:, columns].ravel() for scores, columns in zip(lists, ordinary)])
    values = values[~np.isnan(values)].astype(np.float64)
    # A teacher that says the same of all pairs has nothing to tell.
    spread = values.std() or 1.0
    return [(scores - values.mean()) / spread for scores in lists]


def score_pool(space: SearchSpace, pool: Pool, method: RerankMethod | None, rows: slice = slice(None)) -> np.ndarray:
    """What a method (None: global similarity) says of the candidates of the queries ``rows``, float32 [q, P], the more
    the better, NaN where there is none. A count of inliers becomes its logarithm, and so does a rank in a chain: the
    first ones are what matters."""
    found = np.full(pool.candidates[rows].shape, np.nan, np.float32)
    lists, listings = [], []
    for query, candidates, nearest in zip(pool.queries[rows], pool.candidates[rows], pool.nearest[rows]):
        listed = candidates[candidates >= 0]
        if method is not None and not method.pairwise:
            # A rank is one among a query's nearest, whether the pool holds them or not.
            listed = np.concatenate([listed, nearest[nearest >= 0]])
        listed = np.unique(listed).astype(np.int64)
        # Not space.gallery: the whole of a large list need not be in memory for it.
        own, *others = l2_normalize(read_globals(space.store, space.gallery_index[[query, *listed]]))
        similarities = np.array(others) @ own
        order = np.argsort(-similarities, kind="stable")
        lists.append(Shortlist(int(query), listed[order], similarities[order]))
        listings.append((candidates, listed, order))
    scores = [each.similarities for each in lists] if method is None else method.checked_scores(space, lists)
    for row, given, (candidates, listed, order) in zip(found, scores, listings):
        by_image = np.empty(len(order), np.float32)
        by_image[order] = given
        there = candidates >= 0
        row[there] = by_image[np.searchsorted(listed, candidates[there])]
    return _as_logarithms(method, found)


def _as_logarithms(method, scores):
    if isinstance(method, Chain):
        return -np.log1p(-scores)
    return np.log1p(scores) if type(method).__name__ == "Geometric" else scores


def _kept_pool(images: TrainSet, space, views, settings) -> tuple[Pool, dict]:
    """The pool of a list, of its file or made and kept there, and what identifies it."""
    if len(images.images) < 4:
        raise InputError(f"{images.images.path}: {len(images.images)} images; a teacher needs four at least")
    drawn = {name: getattr(settings, name) for name in ("queries", "nearest", "pool")}
    origin = describe_origin(images.store, images.images, images.images)["queries"]
    made_from = {"pool": drawn, "list": origin, "views": views is not None}
    if views is not None:
        made_from["labels_sha256"] = _digest(views.tobytes())
    path = _path(images, "pool", made_from)
    fields = _load(path, made_from)
    if fields is None:
        fields = vars(make_pool(space, views, settings, _known_neighbours(images, settings.nearest)))
        _save(path, made_from, fields)
    return Pool(**fields), made_from | {"candidates_sha256": _digest(fields["candidates"].tobytes())}


def _known_neighbours(images: TrainSet, wanted: int) -> np.ndarray | None:
    """The table of neighbours beside the list, where it is of this list."""
    path = neighbors_path(images.folder, images.store.attributes["desc_name"])
    try:
        if path.exists() and check_origin(path, images.store, images.images, images.images) is not None:
            table = load_neighbors(path, rows=len(images.images), columns_below=len(images.images))
            return table if np.size(table, 1) >= min(wanted, len(table) - 1) else None
    except InputError:
        pass  # of another list, which says nothing of this one
    return None


def _kept_scores(images: TrainSet, space, pool: Pool, made_from: dict, name: str, cpu: bool) -> np.ndarray:
    """The scores [Q, P] of a list's pool by a method or chain, of its file or made and kept there."""
    if name == "global":
        return score_pool(space, pool, None)
    method = teaching_method(name, cpu)
    store = images.store
    descriptors = store.attributes | {"config": store.config, "rows": int(store.offsets[-1]), "type": store.local_dtype}
    made_from = made_from | _identity(name, cpu) | {"descriptors": descriptors}
    path = _path(images, made_from["teacher"].rstrip(":"), made_from)
    fields = _load(path, made_from)
    if fields is None:
        method.prepare(space)
        scores = _in_blocks(path, made_from, pool, lambda rows: score_pool(space, pool, method, rows), name)
        fields = {"scores": scores}
        _save(path, made_from, fields)
        shutil.rmtree(_blocks(path), ignore_errors=True)
    return fields["scores"]


def _in_blocks(path, made_from, pool: Pool, score: Callable[[slice], np.ndarray], name: str) -> np.ndarray:
    """``score(rows)`` of all queries, the finished blocks of an interrupted run read."""
    folder, total = _blocks(path), len(pool.queries)
    guard_settings(folder / "settings.json", made_from)
    parts = []
    for start in bar(range(0, total, _BLOCK), f"teacher {name}", f"block of {_BLOCK} queries"):
        rows = slice(start, min(start + _BLOCK, total))
        file = folder / f"block-{start // _BLOCK:05d}.npy"
        if not file.exists():
            with atomic_path(file) as temporary:
                np.save(temporary, score(rows))
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)


def _path(images: TrainSet, name: str, made_from: dict) -> Path:
    store = Path(images.store.path)
    digest = _digest(json.dumps(made_from, sort_keys=True).encode())
    return store.with_name(f"{store.stem}.teacher-{name}-{digest[:12]}.npz")


def _blocks(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _save(path: Path, made_from: dict, fields: dict) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, made_from=json.dumps(made_from), **fields)


def _load(path: Path, made_from: dict) -> dict | None:
    """The arrays of a file, None where there is none. InputError where it is damaged or of something else."""
    if not path.exists():
        return None
    try:
        fields = load_npz(path)
        if parse_json(str(fields.pop("made_from"))) != json.loads(json.dumps(made_from)):
            raise ValueError("made from something else")
        return fields
    except Exception as error:  # zipfile, numpy and zlib raise many kinds for a damaged file
        raise InputError(f"{path}: no scores of a teacher in it ({error}); delete it and run again") from None
