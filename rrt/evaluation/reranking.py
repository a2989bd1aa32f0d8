"""Reranking measured by the Revisited protocol (docs/protocol.md 6): shortlists, reordering, fusion, figures."""

import time
from dataclasses import dataclass

import numpy as np

from rrt.datasets.sets import TestSet, check_num_rerank
from rrt.evaluation.metrics import ProtocolResult, bootstrap_interval, evaluate
from rrt.formats.ground_truth import ignored_positions, protocols_of
from rrt.network.scoring import PairScorer
from rrt.rerankers.fusion import PLAIN, Fusion


@dataclass(frozen=True)
class ScoredShortlists:
    """Everything reranking needs, scored once: orders {protocol: integers [Q, R]}, the ranking before reranking with
    the protocol's junk at the end; per query the candidates (gallery positions, ascending), their logits and global
    similarities.

    seconds: wall-clock of the scoring; num_pairs: pairs scored.
    """

    num_rerank: int
    orders: dict[str, np.ndarray]
    candidates: list[np.ndarray]
    logits: list[np.ndarray]
    similarities: list[np.ndarray]
    seconds: float
    num_pairs: int


def junk_last(ranks: np.ndarray, gnd: list[dict], protocol: str) -> np.ndarray:
    """Each row of ranks [Q, R] with what the protocol ignores moved to its end, the order otherwise kept; -1, which may
    fill a row up, stays last."""
    ordered = np.empty_like(ranks)
    for row, entry in enumerate(gnd):
        ignored = np.isin(ranks[row], ignored_positions(entry, protocol))
        ordered[row] = ranks[row][np.argsort(ignored + 2 * (ranks[row] < 0), kind="stable")]
    return ordered


def score_shortlists(
    test: TestSet, scorer: PairScorer, num_rerank: int = 100, whitening=None, protocols=None
) -> ScoredShortlists:
    """Score the first ``num_rerank`` candidates of every query for every protocol (or those named), each pair once;
    more than there are means all.

    whitening: ``rrt.search.whitening.Whitening`` under which the global similarities for fusion are taken, None = as
    stored.
    """

    def score(candidates, similarities):
        return scorer.score(test.query_index, [test.gallery_index[c] for c in candidates])

    return score_pairwise(test, score, num_rerank, whitening, protocols)


def score_pairwise(
    test: TestSet, score, num_rerank: int, whitening=None, protocols=None, ranks: np.ndarray | None = None
) -> ScoredShortlists:
    """The same for ``score(candidates, similarities)``, both lists of an array for every query, -> list of arrays, in
    which a candidate's score depends on it and the query alone. ranks [Q, R]: instead of the neighbours file's."""
    num_rerank = check_num_rerank(test, num_rerank)
    ranks = test.ranks if ranks is None else ranks
    orders = {protocol: junk_last(ranks, test.gnd, protocol) for protocol in protocols or protocols_of(test.gnd)}
    tops = np.concatenate([order[:, :num_rerank] for order in orders.values()], axis=1)
    candidates = [np.unique(top[top >= 0]) for top in tops]
    similarities = global_similarities(test, candidates, whitening)
    start = time.perf_counter()
    scores = score(candidates, similarities)
    seconds = time.perf_counter() - start
    return ScoredShortlists(num_rerank, orders, candidates, scores, similarities, seconds, sum(map(len, candidates)))


def global_similarities(test: TestSet, candidates: list[np.ndarray], whitening=None) -> list[np.ndarray]:
    """Inner products of each query's global descriptor with its candidates' (gallery positions)."""
    prepare = whitening.apply if whitening is not None else np.asarray
    descriptors = test.store.global_descriptors
    queries = prepare(descriptors[test.query_index])
    # Query by query: a gallery with distractors may not fit into memory.
    return [prepare(descriptors[test.gallery_index[c]]) @ query for query, c in zip(queries, candidates)]


def rerank(scored: ScoredShortlists, protocol: str, fusion: Fusion = PLAIN) -> np.ndarray:
    """Ranking [Q, R]: the first candidates by falling score (ties in their old order), the rest as it was."""
    ranks = scored.orders[protocol].copy()
    for row, top in enumerate(ranks[:, : scored.num_rerank]):
        top = top[top >= 0]
        found = np.searchsorted(scored.candidates[row], top)
        scores = fusion.scores(scored.similarities[row][found], scored.logits[row][found])
        ranks[row, : len(top)] = top[np.argsort(-scores, kind="stable")]
    return ranks


def evaluate_global(test: TestSet, ks=(1, 5, 10)) -> dict[str, ProtocolResult]:
    """The figures of the ranking of the neighbours file."""
    return evaluate(test.ranks, test.gnd, ks, len(test.gallery_index))


def evaluate_reranked(
    test: TestSet, scored: ScoredShortlists, fusion: Fusion = PLAIN, ks=(1, 5, 10)
) -> dict[str, ProtocolResult]:
    """The figures after reranking, each protocol's from its own shortlists."""
    return {p: evaluate(rerank(scored, p, fusion), test.gnd, ks, len(test.gallery_index))[p] for p in scored.orders}


def summary(results: dict[str, ProtocolResult], before: dict[str, ProtocolResult] | None = None) -> dict:
    """Plain numbers in percent, two decimals: ``E_map``, ``E_mp``, ``E_mr``, ``E_map_95`` (bootstrap interval over
    queries) and so on for M and H (C: classic); with ``before`` also ``E_gain`` and ``E_gain_95``, the difference
    paired by query."""
    numbers = {}
    for protocol, result in results.items():
        key = protocol[0].upper()
        numbers[f"{key}_map"] = _percent(result.map)
        numbers[f"{key}_mp"] = [_percent(value) for value in result.mp]
        numbers[f"{key}_mr"] = [_percent(value) for value in result.mr]
        numbers[f"{key}_map_95"] = [_percent(value) for value in bootstrap_interval(result.aps)]
        if before is not None:
            numbers[f"{key}_gain"] = _percent(result.map - before[protocol].map)
            gains = bootstrap_interval(result.aps - before[protocol].aps)
            numbers[f"{key}_gain_95"] = [_percent(value) for value in gains]
    return numbers


def _percent(fraction: float) -> float | None:
    # JSON has no NaN.
    return None if np.isnan(fraction) else round(100 * float(fraction), 2)
