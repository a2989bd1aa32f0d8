"""Revisited measures against answers known by hand, an obvious restatement, and the published evaluator's numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.evaluation.metrics import ProtocolResult, average_precision, bootstrap_interval, evaluate, format_table
from rrt.formats.ground_truth import PROTOCOLS, load_ground_truth, protocols_of


def truth(easy=(), hard=(), junk=()):
    return {"easy": list(easy), "hard": list(hard), "junk": list(junk), "bbx": [0.0, 0.0, 1.0, 1.0]}


def obvious(ranked, entry, protocol, ks):
    """(AP, [P@k], [R@k]) of one query, walking down the ranking as the specification tells it."""
    ok = {"easy": entry["easy"], "medium": list(entry["easy"]) + list(entry["hard"]), "hard": entry["hard"]}[protocol]
    junk = {
        "easy": list(entry["junk"]) + list(entry["hard"]),
        "medium": entry["junk"],
        "hard": list(entry["junk"]) + list(entry["easy"]),
    }[protocol]
    if len(ok) == 0:
        return math.nan, [math.nan] * len(ks), [math.nan] * len(ks)
    cleaned = [image for image in ranked if image not in set(junk)]
    hit_ranks = [rank for rank, image in enumerate(cleaned) if image in set(ok)]
    ap = 0.0
    for i, rank in enumerate(hit_ranks):
        before = i / rank if rank > 0 else 1.0
        ap += (before + (i + 1) / (rank + 1)) / 2 / len(ok)
    precisions, recalls = [], []
    for k in ks:
        hits = sum(rank < k for rank in hit_ranks)
        depth = min(k, hit_ranks[-1] + 1) if len(hit_ranks) == len(ok) else k
        precisions.append(hits / depth)
        recalls.append(hits / len(ok))
    return ap, precisions, recalls


@st.composite
def rankings(draw):
    """(ranks [Q, R], gnd, ks): some gallery images graded, rankings possibly cut."""
    size = draw(st.integers(1, 25))
    gnd, ranks = [], []
    length = draw(st.integers(0, size))
    for _ in range(draw(st.integers(1, 4))):
        grades = draw(st.lists(st.sampled_from(["easy", "hard", "junk", None, None]), min_size=size, max_size=size))
        gnd.append(
            truth(*([i for i, given in enumerate(grades) if given == grade] for grade in ("easy", "hard", "junk")))
        )
        ranks.append(draw(st.permutations(range(size)))[:length])
    return (
        np.array(ranks, dtype=np.int64).reshape(len(gnd), length),
        gnd,
        tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))),
    )


@given(rankings())
def test_the_fast_way_equals_the_obvious_one(case):
    ranks, gnd, ks = case
    results = evaluate(ranks, gnd, ks)
    for protocol in PROTOCOLS:
        expected = [obvious(row.tolist(), entry, protocol, ks) for row, entry in zip(ranks, gnd)]
        result = results[protocol]
        np.testing.assert_allclose(result.aps, [row[0] for row in expected], rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.ps, [row[1] for row in expected], rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.rs, [row[2] for row in expected], rtol=0, atol=1e-12)
        counted = [row for row in expected if not math.isnan(row[0])]
        if counted:
            assert result.map == pytest.approx(sum(row[0] for row in counted) / len(counted), abs=1e-12)
            np.testing.assert_allclose(result.mp, np.mean([row[1] for row in counted], 0), rtol=0, atol=1e-12)
            np.testing.assert_allclose(result.mr, np.mean([row[2] for row in counted], 0), rtol=0, atol=1e-12)
        else:
            assert math.isnan(result.map) and np.isnan(result.mp).all() and np.isnan(result.mr).all()


def philbin(ranked, entry):
    """Classic average precision of one query, image by image as Philbin et al. measured Oxford5k."""
    positives = set(entry["good"]) | set(entry["ok"])
    old_recall, old_precision, ap, hits, counted = 0.0, 1.0, 0.0, 0, 0
    for image in ranked:
        if image in set(entry["junk"]):
            continue
        counted += 1
        hits += image in positives
        recall, precision = hits / len(positives), hits / counted
        ap += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return ap


@given(rankings())
def test_the_classic_protocol_equals_the_obvious_one(case):
    ranks, gnd, ks = case
    classic = [{"good": entry["easy"], "ok": entry["hard"], "junk": entry["junk"]} for entry in gnd]
    result = evaluate(ranks, classic, ks)
    expected = [
        philbin(row.tolist(), entry) if entry["good"] or entry["ok"] else math.nan for row, entry in zip(ranks, classic)
    ]
    assert list(result) == ["classic"] and protocols_of(classic) == ("classic",)
    np.testing.assert_allclose(result["classic"].aps, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(result["classic"].ps, evaluate(ranks, gnd, ks)["medium"].ps)


def test_graded_by_two_manners_is_refused():
    with pytest.raises(InputError, match="some queries are graded easy and hard, others good and ok"):
        evaluate([[0], [0]], [truth([0]), {"good": [0], "ok": [], "junk": []}])


@given(rankings(), st.randoms(use_true_random=False))
def test_junk_may_stand_anywhere(case, random):
    ranks, gnd, ks = case
    for entry, row in zip(gnd, ranks):
        clean = [image for image in row.tolist() if image not in entry["junk"]]
        shuffled = list(clean)
        for image in set(row.tolist()) - set(clean):
            shuffled.insert(random.randint(0, len(shuffled)), image)
        first, second = (
            evaluate(np.array([order], dtype=np.int64), [entry], ks)["medium"] for order in (row.tolist(), shuffled)
        )
        np.testing.assert_array_equal(first.aps, second.aps)
        np.testing.assert_array_equal(first.ps, second.ps)


@given(rankings())
def test_measures_lie_between_none_and_all(case):
    for result in evaluate(*case).values():
        for values in (result.aps, result.ps, result.rs):
            values = values[~np.isnan(values)]
            assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@given(rankings())
def test_a_cut_ranking_has_the_precision_of_the_whole_one_within_the_cut(case):
    ranks, gnd, ks = case
    everything = (
        max(
            [int(ranks.max(initial=0))]
            + [max(entry[grade], default=0) for entry in gnd for grade in ("easy", "hard", "junk")]
        )
        + 1
    )
    whole = np.array(
        [row + [image for image in range(everything) if image not in row] for row in ranks.tolist()], dtype=np.int64
    )
    for protocol in PROTOCOLS:
        cut, full = evaluate(ranks, gnd, ks)[protocol], evaluate(whole, gnd, ks)[protocol]
        for row, entry in enumerate(gnd):
            skipped = {"easy": ("junk", "hard"), "medium": ("junk",), "hard": ("junk", "easy")}[protocol]
            ignored = {image for grade in skipped for image in entry[grade]}
            listed = sum(image not in ignored for image in ranks[row].tolist())
            within = [column for column, k in enumerate(ks) if k <= listed]
            np.testing.assert_array_equal(cut.ps[row, within], full.ps[row, within])
            np.testing.assert_array_equal(cut.rs[row, within], full.rs[row, within])


@pytest.mark.parametrize(
    "ranks, num_positive, expected",
    [
        ([0], 1, 1.0),
        ([0, 1, 2], 3, 1.0),
        ([1], 1, 0.25),
        ([], 4, 0.0),
        ([0], 2, 0.5),
        ([0, 2], 2, (1 + (1 / 2 + 2 / 3) / 2) / 2),
    ],
)
def test_average_precision_known_by_hand(ranks, num_positive, expected):
    assert average_precision(ranks, num_positive) == pytest.approx(expected, abs=1e-15)


def test_protocols_differ_in_what_is_right_and_what_is_left_out():
    # Image 0 is easy, 1 hard, 2 junk, 3 and 4 neither; what is left of the ranking stands behind each line.
    results = evaluate([[2, 1, 3, 0, 4]], [truth([0], [1], [2])], ks=(1, 2))
    assert results["easy"].map == pytest.approx((0 / 1 + 1 / 2) / 2)  # 3, 0, 4
    assert results["hard"].map == pytest.approx(1.0)  # 1, 3, 4
    assert results["medium"].map == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)  # 1, 3, 0, 4
    assert results["easy"].ps.tolist() == [[0.0, 0.5]] and results["easy"].rs.tolist() == [[0.0, 1.0]]
    assert results["medium"].rs.tolist() == [[0.5, 0.5]]


def test_precision_at_k_counts_no_deeper_than_the_last_positive():
    result = evaluate([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]], [truth([0, 1])], ks=(1, 5, 10))["easy"]
    assert result.ps.tolist() == [[1.0, 1.0, 1.0]]


def test_a_positive_that_is_not_listed_counts_as_not_found():
    result = evaluate([[0, 5]], [truth([0, 3])], ks=(1, 5))["easy"]
    assert result.aps[0] == pytest.approx(0.5)
    assert result.ps.tolist() == [[1.0, 0.2]] and result.rs.tolist() == [[0.5, 0.5]]


def test_a_row_may_end_early():
    whole, padded = (evaluate(np.array([ranks]), [truth([0], [2])])["medium"] for ranks in ([1, 0], [1, 0, -1, -1]))
    assert whole.aps.tolist() == padded.aps.tolist()
    assert evaluate([[-1, -1]], [truth([0])])["easy"].aps.tolist() == [0.0]


def test_queries_without_positives_are_left_out_of_the_means():
    result = evaluate([[0, 1], [1, 0]], [truth([0]), truth(hard=[0])])["easy"]
    assert result.map == 1.0 and math.isnan(result.aps[1]) and np.isnan(result.ps[1]).all() and result.mp[0] == 1.0


@pytest.mark.parametrize(
    "ranks, gallery, what",
    [
        ([[0, 1, 0]], None, "row 0 lists gallery position 0 more than once"),
        ([[0, 5]], 5, "row 0 names gallery position 5, the gallery has 5 images"),
        ([[0, 7]], 5, "row 0 names gallery position 7, the gallery has 5 images"),
        ([[0, -1, 1]], None, "row 0 has a negative gallery position"),
        ([[0], [1]], None, "2 rows for the 1 queries"),
        ([[0.5]], None, "expected integers"),
        ([0, 1], None, "expected integers"),
        ([[0, -2]], None, "row 0 has a negative gallery position"),
        (np.array([[2**64 - 1]], np.uint64), 5, "row 0 names gallery position 18446744073709551615, the gallery has 5"),
        (np.array([[2**28]]), None, "position 268435456, more than a gallery has; give num_gallery"),
        (np.array([[2**62]]), None, "position 4611686018427387904, more than a gallery has; give num_gallery"),
    ],
)
def test_a_ranking_that_does_not_fit_is_refused(ranks, gallery, what):
    with pytest.raises(InputError, match=what):
        evaluate(np.array(ranks), [truth([0])], num_gallery=gallery)


@pytest.mark.parametrize(
    "entry, gallery, what",
    [
        (truth([5]), 5, "query 1 names gallery position 5, the gallery has 5 images"),
        (truth([0], [-1]), None, "query 1 names gallery position -1"),
        (truth([0], [1], [0]), None, "query 1 names gallery position 0 more than once"),
    ],
)
def test_ground_truth_that_does_not_fit_is_refused(entry, gallery, what):
    with pytest.raises(InputError, match=what):
        evaluate([[0, 1], [0, 1]], [truth([0], [1]), entry], num_gallery=gallery)


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_a_cut_off_below_one_is_refused(k):
    with pytest.raises(InputError, match="cut-off k = "):
        evaluate([[0]], [truth([0])], ks=(1, k))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64])
def test_rankings_may_have_any_integer_type_and_nothing_in_them(kind):
    assert evaluate(np.array([[1, 0]], kind), [truth([0])])["easy"].aps.tolist() == [0.25]
    assert evaluate(np.zeros((1, 0), kind), [truth([0])])["easy"].aps.tolist() == [0.0]
    assert math.isnan(evaluate(np.zeros((0, 3), kind), [])["easy"].map)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_query_equals_the_published_evaluator(shared_data, shared_golden, protocol):
    gnd = load_ground_truth(shared_data / "revisited" / "oxford5k" / "gnd_roxford5k.pkl").gnd
    golden = np.load(shared_golden / "roxford_metrics.npz")
    result = evaluate(golden["ranks"].T, gnd, num_gallery=4993)[protocol]
    for ours, theirs in ((result.map, "map"), (result.aps, "aps"), (result.mp, "mp"), (result.ps, "ps")):
        np.testing.assert_allclose(ours, golden[f"{protocol[0].upper()}_{theirs}"], rtol=0, atol=1e-12)
    assert np.isnan(result.aps).sum() == np.isnan(golden[f"{protocol[0].upper()}_aps"]).sum()


def test_the_bootstrap_interval_covers_the_mean_and_is_repeatable():
    aps = np.random.default_rng(1).uniform(size=60)
    low, high = bootstrap_interval(aps)
    assert low < aps.mean() < high and (low, high) == bootstrap_interval(aps)
    # The normal approximation is near for a mean of 60 values.
    half = 1.96 * aps.std() / math.sqrt(60)
    assert low == pytest.approx(aps.mean() - half, abs=0.01) and high == pytest.approx(aps.mean() + half, abs=0.01)
    assert bootstrap_interval(np.append(aps, np.nan)) == (low, high)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    assert all(math.isnan(bound) for bound in bootstrap_interval([math.nan]))
    assert bootstrap_interval(aps, level=0.5)[0] > low


def test_the_table_gives_percent_for_each_method_and_protocol():
    ranks, gnd = [[0, 1, 2, 3], [3, 2, 1, 0]], [truth([0], [2]), truth([1])]
    table = format_table({"global": evaluate(ranks, gnd, ks=(1, 2)), "reranked": evaluate(ranks, gnd, ks=(1, 2))})
    lines = table.splitlines()
    assert len(lines) == 2 + 2 * 3 and len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["method", "protocol", "mAP", "mP@1", "mP@2", "mR@1", "mR@2"]
    assert cells[2] == ["global", "Easy", "58.33", "50.00", "50.00", "50.00", "50.00"]
    assert cells[4][:3] == ["global", "Hard", "25.00"]
    assert "95 % interval" in format_table({"a": evaluate(ranks, gnd)}, intervals=True).splitlines()[0]


def test_a_measure_without_queries_is_a_dash():
    empty = ProtocolResult(
        math.nan,
        np.array([math.nan]),
        np.array([math.nan]),
        np.full((1, 1), math.nan),
        np.array([math.nan]),
        np.full((1, 1), math.nan),
        (1,),
    )
    assert format_table({"a": {"hard": empty}}).splitlines()[2].count(" -") == 3
    cells = [cell.strip() for cell in format_table({"a": {"hard": empty}}, intervals=True).splitlines()[2].split("|")]
    assert cells == ["", "a", "Hard", *["-"] * 4, ""]
