"""A method measured on a test set by the Revisited protocol."""

import time
from dataclasses import dataclass

import numpy as np

from rrt.datasets.sets import TestSet, check_num_rerank
from rrt.evaluation.metrics import ProtocolResult, evaluate
from rrt.evaluation.on_ray import OnRay
from rrt.evaluation.reranking import global_similarities, rerank, score_pairwise
from rrt.formats.ground_truth import protocols_of
from rrt.rerankers.base import RerankMethod, SearchSpace, Shortlist
from rrt.rerankers.chain import reorder, stages_of


@dataclass(frozen=True)
class Measured:
    """results {protocol: ProtocolResult}; rankings {protocol: integers [Q, R]}; prepare_seconds: what is done once for
    the gallery; seconds: of scoring all queries; num_scored: candidates scored, num_rerank: of each query by the last
    method, None = all; remark: what a reader of the figures must know."""

    results: dict[str, ProtocolResult]
    rankings: dict[str, np.ndarray]
    prepare_seconds: float
    seconds: float
    num_scored: int
    num_rerank: int | None
    remark: str = ""

    @property
    def ms_per_query(self) -> float:
        """Milliseconds of scoring a query."""
        return round(1000 * self.seconds / len(next(iter(self.results.values())).aps), 2)


def measure_method(
    test: TestSet,
    method: RerankMethod,
    whitening=None,
    num_rerank: int | None = None,
    ks=(1, 5, 10),
    ray_address: str | None = None,
) -> Measured:
    """Rerank the ranking of the neighbours file.

    num_rerank: candidates that the method, or the last one of a chain, reorders; None = its own number. What a protocol
    ignores is put behind the gallery before a pairwise method chooses its candidates, as the published program has it;
    methods that learn from the ranking see it as it is. ray_address: of a Ray cluster whose workers prepare and score
    (rrt.evaluation.on_ray). Raises InputError when the ranking lists too few images.
    """
    space = SearchSpace(test.store, test.query_index, test.gallery_index, whitening)
    whole = stages_of(method)
    if ray_address:
        whole = [(OnRay(each, ray_address), most) for each, most in whole]
    *stages, (last, own) = whole
    depth = own if num_rerank is None else num_rerank
    if depth is not None:
        depth = check_num_rerank(test, depth)
    # The search has read and whitened the global descriptors before: not the method's time.
    lists = _shortlists(test, space, whitening) if stages or not last.pairwise else []
    start = time.perf_counter()
    if not ray_address:
        method.prepare(space)
    prepared = time.perf_counter()
    for stage, most in stages:
        lists = reorder(space, stage, lists, most)
    rankings: dict[str, np.ndarray] = {}
    if last.pairwise:

        def score(candidates, similarities):
            heads = [Shortlist(query, *each) for query, each in enumerate(zip(candidates, similarities))]
            return last.checked_scores(space, heads)

        width = len(test.gallery_index) if depth is None else depth
        ranks = _table(lists, test.ranks.shape) if stages else test.ranks
        scored = score_pairwise(test, score, width, whitening, ranks=ranks)
        rankings = {name: rerank(scored, name) for name in scored.orders}
        num_scored = scored.num_pairs
    else:
        lists = reorder(space, last, lists, depth)
        ranking = _table(lists, test.ranks.shape)
        rankings |= dict.fromkeys(protocols_of(test.gnd), ranking)
        num_scored = sum(min(len(each.candidates), depth or len(each.candidates)) for each in lists)
    seconds = time.perf_counter() - prepared
    gallery = len(test.gallery_index)
    results = {name: evaluate(ranking, test.gnd, ks, gallery)[name] for name, ranking in rankings.items()}
    return Measured(results, rankings, prepared - start, seconds, num_scored, depth, method.remark(space))


def _shortlists(test, space, whitening):
    """The whole ranking of every query."""
    listed = [row[row >= 0] for row in test.ranks]
    if sum(map(len, listed)) < len(test.gallery_index):
        # Rankings among many distractors list few images of a gallery that need not be read whole.
        similarities = global_similarities(test, listed, whitening)
    else:
        similarities = [space.gallery[row] @ query for row, query in zip(listed, space.queries)]
    return [Shortlist(query, *each) for query, each in enumerate(zip(listed, similarities))]


def _table(lists, shape):
    ranks = np.full(shape, -1, np.int64)
    for row, each in enumerate(lists):
        ranks[row, : len(each.candidates)] = each.candidates
    return ranks
