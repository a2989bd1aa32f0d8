"""What LATE matches in one pair of images: its matches, with what each gives to the score, and the descriptors'
weights."""

from dataclasses import dataclass

import numpy as np
import torch

from rrt.network.late import LATE
from rrt.network.pairs import read_images


@dataclass(frozen=True)
class PairMatches:
    """strengths float32 [n, m]: what the cosine of two local descriptors gives to the similarity m(q, x) of rrt.network
    .late, 0 where neither is the other's best match, so that all of them sum to m(q, x); shares: the weights of the
    descriptors of query [n] and candidate [m], 1 = an equal share; logit: the network's."""

    strengths: np.ndarray
    shares: tuple[np.ndarray, np.ndarray]
    logit: float


def pair_matches(
    model: LATE, store, query: int, candidate: int, max_local: int | None = 500, binning: str = "published"
) -> PairMatches:
    """The matches of the pair (query, candidate), indices in the store. max_local, binning: as the model was trained.
    Raises InputError for descriptors that are not finite."""
    images = read_images(store, np.array([query, candidate]), max_local, binning, model.settings["positions"])
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            encoded = model.encode(images, model.constants.device)
            rows, weights = (
                [part.cpu().numpy() for part in values.split(images.counts.tolist())]
                for values in (encoded.vectors, encoded.weights)
            )
            strengths = _strengths(rows[0], rows[1], weights[0], weights[1], model.settings["symmetric"])
            found, cosine = torch.tensor(strengths.sum()), encoded.globals_[0].cpu() @ encoded.globals_[1].cpu()
            logit = float(model.combine(found.to(encoded.globals_), cosine.to(encoded.globals_)))
    finally:
        model.train(training)
    return PairMatches(strengths, (weights[0] * len(rows[0]), weights[1] * len(rows[1])), logit)


def _strengths(query, candidate, query_weights, candidate_weights, symmetric) -> np.ndarray:
    cosines = query @ candidate.T
    strengths = np.zeros_like(cosines)
    if not cosines.size:
        return strengths
    i, best = np.arange(len(query)), cosines.argmax(1)
    strengths[i, best] = query_weights * cosines[i, best]
    if symmetric:
        j, best = np.arange(len(candidate)), cosines.argmax(0)
        strengths[best, j] += candidate_weights * cosines[best, j]
        strengths /= 2
    return strengths
