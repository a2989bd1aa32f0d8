"""The constants by which ``LATE`` weighs matching against global similarity, measured before training."""

import numpy as np

from rrt.datasets.sets import TrainSet
from rrt.network.late import LATE
from rrt.rerankers.maxsim import MaxSim
from rrt.store.checked import read_globals
from rrt.store.linear import l2_normalize

# Images drawn, queries among them, and the most similar ones that are looked at of each: like shortlists.
_IMAGES, _QUERIES, _CANDIDATES = 2000, 32, 30


def standardise(network: LATE, train: TrainSet, max_local: int | None, seed: int = 0) -> None:
    """Set the means of both similarities of a new network among shortlists of the training images, and their spreads
    within a shortlist (root mean square). No label is looked at."""
    rng = np.random.default_rng([seed, 2])
    images = train.index[rng.permutation(len(train.index))[:_IMAGES]]
    globals_ = l2_normalize(read_globals(train.store, images))
    similarities = globals_[:_QUERIES] @ globals_.T
    similarities[np.arange(len(similarities)), np.arange(len(similarities))] = -np.inf
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, : min(_CANDIDATES, len(images) - 1)]
    method = MaxSim(
        symmetric=network.settings["symmetric"], query_local=max_local, gallery_local=max_local, device="cpu"
    )
    matches = np.array(
        [method.similarities(train.store, int(images[row]), images[near]) for row, near in enumerate(nearest)]
    )
    network.standardise(*_mean_and_spread(matches), *_mean_and_spread(np.take_along_axis(similarities, nearest, 1)))


def _mean_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Of rows [queries, candidates]; a spread of nothing counts as 1."""
    values = np.asarray(values, np.float64)
    spread = float(np.sqrt(values.var(axis=1).mean())) if values.size else 0.0
    return float(values.mean()) if values.size else 0.0, spread if spread > 1e-6 else 1.0
