"""rrt/evaluation/reranking.py: the published protocol on the small golden set, and reordering by hand."""

from dataclasses import replace

import numpy as np
import pytest
from builders import copy_golden_set
from places import GOLDEN as GOLDEN_FILES

from rrt.datasets.sets import open_test_set
from rrt.errors import InputError
from rrt.evaluation.metrics import ProtocolResult, bootstrap_interval
from rrt.evaluation.reranking import (
    ScoredShortlists,
    evaluate_global,
    evaluate_reranked,
    junk_last,
    rerank,
    score_pairwise,
    score_shortlists,
    summary,
)
from rrt.network.checkpoint import load_checkpoint, load_weights
from rrt.network.model import RRT
from rrt.network.scorer import Scorer
from rrt.rerankers.fusion import Fusion
from rrt.search.table import save_neighbors
from rrt.search.whitening import fit_pca_whitening
from rrt.store.importing_delg import import_delg

GOLDEN = GOLDEN_FILES / "legacy_mini"


@pytest.fixture(scope="module")
def expected():
    return np.load(GOLDEN / "expected.npz")


@pytest.fixture(scope="module")
def golden_set(tmp_path_factory, expected):
    """The small set of published files as a dataset folder of ours."""
    folder = copy_golden_set(tmp_path_factory.mktemp("legacy"))
    save_neighbors(folder / "nn_inds_r50_gldv2.pkl", expected["nn_inds"])
    import_delg(folder, "r50_gldv2")
    return open_test_set(folder, "r50_gldv2", "gnd_mini.pkl")


def test_golden_figures_of_global_search(golden_set, expected):
    for protocol, result in evaluate_global(golden_set).items():
        assert round(100 * result.map, 2) == expected[f"global_{protocol[0].upper()}_map"]
        assert result.ks == (1, 5, 10)
        np.testing.assert_allclose(100 * result.mp, expected[f"global_{protocol[0].upper()}_mp"], atol=0.0051)


@pytest.fixture(scope="module")
def golden_scorer(golden_set, shared_golden):
    model = RRT()
    load_weights(model, load_checkpoint(shared_golden / "rrt_full.pt"))
    return Scorer(model, golden_set.store)


def test_golden_logits_of_the_first_twenty_neighbours(golden_set, golden_scorer, expected):
    shortlists = [golden_set.gallery_index[row[:20]] for row in golden_set.ranks]
    logits = np.stack(golden_scorer.score(golden_set.query_index, shortlists))
    np.testing.assert_allclose(logits, expected["rrt_logits_top20"], atol=1e-3)


def test_golden_figures_after_reranking(golden_set, golden_scorer, expected):
    scored = score_shortlists(golden_set, golden_scorer)
    numbers = summary(evaluate_reranked(golden_set, scored))
    for protocol in "MH":
        assert numbers[f"{protocol}_map"] == pytest.approx(expected[f"rrt_{protocol}_map"], abs=0.0051)
        np.testing.assert_allclose(numbers[f"{protocol}_mp"], expected[f"rrt_{protocol}_mp"], atol=0.0051)
    # Each of 6 x 84 candidates once, though all three protocols rerank them.
    assert scored.num_pairs == 6 * 84


GND = [{"easy": np.array([4]), "hard": np.array([2]), "junk": np.array([0, 3])}]
RANKS = np.array([[3, 1, 2, 0, 4, 5]])


@pytest.mark.parametrize(
    "protocol, order", [("easy", [1, 4, 5, 3, 2, 0]), ("medium", [1, 2, 4, 5, 3, 0]), ("hard", [1, 2, 5, 3, 0, 4])]
)
def test_what_a_protocol_ignores_goes_to_the_end_in_its_old_order(protocol, order):
    assert junk_last(RANKS, GND, protocol).tolist() == [order]


def test_what_fills_a_ranking_up_stays_last():
    assert junk_last(np.array([[3, 1, 2, 4, -1, -1]]), GND, "medium").tolist() == [[1, 2, 4, 3, -1, -1]]


def test_what_fills_a_ranking_up_is_no_candidate(golden_set):
    ranks = golden_set.ranks[:, :12].copy()
    ranks[:, 7:] = -1
    scored = score_pairwise(golden_set, lambda candidates, similarities: [-s for s in similarities], 10, ranks=ranks)
    for row, found in zip(ranks, rerank(scored, "medium")):
        assert found[:7].min() >= 0 and sorted(found[:7]) == sorted(row[:7]) and (found[7:] == -1).all()
    assert all(candidates.tolist() == sorted(row[:7]) for candidates, row in zip(scored.candidates, ranks))


def test_protocols_that_are_named_are_scored_alone(golden_set):
    scored = score_pairwise(golden_set, lambda candidates, similarities: similarities, 5, protocols=["hard"])
    assert list(scored.orders) == ["hard"] and (scored.num_rerank, scored.num_pairs) == (5, 6 * 5)
    assert [c.tolist() for c in scored.candidates] == np.sort(scored.orders["hard"][:, :5]).tolist()
    assert 0 <= scored.seconds < 60


def scored_by(logits, similarities=None, num_rerank=4):
    """Shortlists of the one query above, with logits of gallery images 0..5."""
    orders = {protocol: junk_last(RANKS, GND, protocol) for protocol in ("easy", "medium", "hard")}
    similarities = np.zeros(6) if similarities is None else np.array(similarities)
    return ScoredShortlists(num_rerank, orders, [np.arange(6)], [np.array(logits)], [similarities], 0.0, 6)


def test_the_first_candidates_are_sorted_by_logit_and_the_rest_stay():
    ranks = rerank(scored_by([9.0, 0.1, 0.3, 9.0, 0.2, 0.4]), "medium")
    assert ranks.tolist() == [[5, 2, 4, 1, 3, 0]]


def test_only_num_rerank_candidates_move():
    ranks = rerank(scored_by([9.0, 0.1, 0.3, 9.0, 0.2, 0.4], num_rerank=2), "medium")
    assert ranks.tolist() == [[2, 1, 4, 5, 3, 0]]


def test_equal_logits_keep_the_global_order():
    assert rerank(scored_by([0.0] * 6), "medium").tolist() == [[1, 2, 4, 5, 3, 0]]


def test_many_equal_logits_keep_the_global_order():
    order = np.random.default_rng(0).permutation(200)
    logits = [np.repeat([0.0, 1.0], 100)]
    scored = ScoredShortlists(200, {"medium": order[None]}, [np.arange(200)], logits, [np.zeros(200)], 0.0, 200)
    expected = [*order[order >= 100], *order[order < 100]]
    assert rerank(scored, "medium").tolist() == [expected]


def test_a_ranking_that_is_given_replaces_that_of_the_neighbours_file(golden_set):
    ranks = golden_set.ranks[:, ::-1].copy()
    scored = score_pairwise(golden_set, lambda candidates, similarities: similarities, 3, ranks=ranks)
    for protocol, order in scored.orders.items():
        np.testing.assert_array_equal(order, junk_last(ranks, golden_set.gnd, protocol))
    # Scored by their similarities and blended with nothing else, the first candidates come in the order of those.
    plain, fused = (evaluate_reranked(golden_set, scored, fusion) for fusion in (Fusion(), Fusion(1.0)))
    assert all(plain[p].map == fused[p].map for p in plain)
    against = score_pairwise(golden_set, lambda candidates, similarities: [-s for s in similarities], 50)
    plain, fused = (evaluate_reranked(golden_set, against, fusion) for fusion in (Fusion(), Fusion(1.0)))
    assert all(plain[p].map < fused[p].map for p in plain)


def test_fusion_blends_similarity_and_probability():
    fusion = Fusion(0.25, 2.0)
    scores = fusion.scores(np.array([0.8, 0.1]), np.array([0.0, 0.5]))
    np.testing.assert_allclose(scores, [0.25 * 0.8 + 0.75 * 0.5, 0.25 * 0.1 + 0.75 / (1 + np.exp(-1))])


def test_fusion_of_weight_one_is_the_order_of_similarities():
    scored = scored_by([9.0, 1, 2, 3, 4, 5], similarities=[0, 0.4, 0.1, 0, 0.3, 0.2])
    assert rerank(scored, "medium", Fusion(1.0)).tolist() == [[1, 4, 5, 2, 3, 0]]


def test_without_fusion_saturated_logits_do_not_tie():
    assert rerank(scored_by([0, 100.0, 101, 0, 102, 103]), "medium").tolist() == [[5, 4, 2, 1, 3, 0]]


@pytest.mark.parametrize("settings", [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0)])
def test_impossible_fusions_are_refused(settings):
    with pytest.raises(InputError, match="fusion"):
        Fusion(*settings)


def test_similarities_are_taken_under_the_whitening(golden_set):
    class NoScorer:
        def score(self, queries, shortlists):
            return [np.zeros(len(shortlist), np.float32) for shortlist in shortlists]

    descriptors = golden_set.store.global_descriptors
    whitening = fit_pca_whitening(descriptors, 8)
    scored = score_shortlists(golden_set, NoScorer(), 5, whitening)
    query, gallery = (
        whitening.apply(descriptors[index]) for index in (golden_set.query_index, golden_set.gallery_index)
    )
    for row, (candidates, similarities) in enumerate(zip(scored.candidates, scored.similarities)):
        np.testing.assert_allclose(similarities, gallery[candidates] @ query[row], atol=1e-6)


def result_of(aps, mp=(0.5,), mr=(0.25,)):
    nothing = np.empty((len(aps), len(mp)))
    return ProtocolResult(float(np.mean(aps)), np.array(aps), np.array(mp), nothing, np.array(mr), nothing, (1,))


def test_the_summary_has_paired_gains():
    numbers = summary({"medium": result_of([0.5, 0.7])}, {"medium": result_of([0.4, 0.6])})
    assert numbers["M_map"] == 60.0 and numbers["M_gain"] == 10.0 and numbers["M_gain_95"] == [10.0, 10.0]


def test_the_summary_gives_percent_of_every_measure_and_nothing_where_there_is_no_query():
    aps = np.random.default_rng(0).uniform(size=40)
    numbers = summary({"hard": result_of(aps, (0.5, 0.123456), (0.25, 1))})
    low, high = bootstrap_interval(aps)
    assert numbers == {
        "H_map": round(100 * aps.mean(), 2),
        "H_mp": [50.0, 12.35],
        "H_mr": [25.0, 100.0],
        "H_map_95": [round(100 * low, 2), round(100 * high, 2)],
    }
    assert summary({"easy": result_of([np.nan], [np.nan], [np.nan])}) == {
        "E_map": None,
        "E_mp": [None],
        "E_mr": [None],
        "E_map_95": [None, None],
    }


def test_a_ranking_outside_of_the_gallery_is_not_measured(golden_set):
    ranks = golden_set.ranks.copy()
    ranks[2, 7] = len(golden_set.gallery_index)
    beyond = replace(golden_set, ranks=ranks)
    scored = ScoredShortlists(0, {"medium": ranks}, *[[np.empty(0, int)] * 6] * 3, 0.0, 0)
    for measure in (lambda: evaluate_global(beyond), lambda: evaluate_reranked(beyond, scored)):
        with pytest.raises(InputError, match="row 2 names gallery position 84, the gallery has 84 images"):
            measure()
