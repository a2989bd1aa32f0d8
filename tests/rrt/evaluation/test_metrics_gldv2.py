"""mAP@k, recall@k and GAP against obvious restatements and answers known by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.evaluation.metrics import global_average_precision, mean_average_precision_at_k


@st.composite
def searches(draw):
    """(ranks [Q, R] with rows that may end in -1, positives, gallery size)."""
    size, queries = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    length = draw(st.integers(0, size))
    rows, positives = [], []
    for _ in range(queries):
        kept = draw(st.integers(0, length))
        rows.append(draw(st.permutations(range(size)))[:kept] + [-1] * (length - kept))
        positives.append(draw(st.lists(st.integers(0, size - 1), unique=True)))
    return np.array(rows, dtype=np.int64).reshape(queries, length), positives, size


def obvious_ap(ranked, positives, k):
    hits, total = 0, 0.0
    for j, image in enumerate(ranked[:k], start=1):
        if image in positives:
            hits += 1
            total += hits / j
    return total / min(len(positives), k) if positives else math.nan


class TestMeanAveragePrecision:
    @given(searches(), st.integers(1, 25))
    def test_it_equals_the_obvious_one(self, case, k):
        ranks, positives, size = case
        expected = [obvious_ap(row.tolist(), right, k) for row, right in zip(ranks, positives)]
        mean, aps = mean_average_precision_at_k(ranks, positives, k, size)
        np.testing.assert_allclose(aps, expected, rtol=0, atol=1e-12)
        counted = [ap for ap in expected if not math.isnan(ap)]
        assert mean == pytest.approx(sum(counted) / len(counted), abs=1e-12) if counted else math.isnan(mean)

    @given(searches(), st.integers(1, 25))
    def test_what_stands_behind_the_cut_does_not_count(self, case, k):
        ranks, positives, size = case
        np.testing.assert_array_equal(
            mean_average_precision_at_k(ranks, positives, k, size)[1],
            mean_average_precision_at_k(ranks[:, :k], positives, k)[1],
        )

    @given(searches(), st.integers(1, 25))
    def test_a_perfect_ranking_has_one(self, case, k):
        _, positives, size = case
        ranks = np.array([right + [i for i in range(size) if i not in right] for right in positives])
        aps = mean_average_precision_at_k(ranks, positives, k)[1]
        np.testing.assert_allclose(aps[[bool(right) for right in positives]], 1, rtol=0, atol=1e-12)

    def test_answers_known_by_hand(self):
        # Right at ranks 1 and 3 of three right ones: (1/1 + 2/3) / 3; with k = 2: (1/1) / 2.
        assert mean_average_precision_at_k([[4, 0, 5, 1]], [[4, 5, 9]])[0] == pytest.approx((1 + 2 / 3) / 3)
        assert mean_average_precision_at_k([[4, 0, 5, 1]], [[4, 5, 9]], k=2)[0] == pytest.approx(1 / 2)

    @pytest.mark.filterwarnings("error")
    def test_queries_without_positives_have_no_average_precision(self):
        mean, aps = mean_average_precision_at_k([[0, 1], [1, 0]], [[], [1]])
        assert mean == 1 and math.isnan(aps[0]) and math.isnan(mean_average_precision_at_k([[0]], [[]])[0])

    @pytest.mark.parametrize(
        "ranks, positives, gallery, message",
        [
            ([[0, 1, 0]], [[0]], None, "row 0 lists gallery position 0 more than once"),
            ([[0, 1], [1, 1]], [[0], [1]], None, "row 1 lists gallery position 1 more than once"),
            ([[0, 7]], [[0]], 5, "row 0 names gallery position 7, the gallery has 5 images"),
            ([[0, 1]], [[5]], 5, "query 0 names gallery position 5, the gallery has 5 images"),
            ([[0, 1]], [[-1]], None, "query 0 names gallery position -1"),
            ([[0, 1]], [[1, 1]], None, "query 0 names gallery position 1 more than once"),
            ([[-1, 1]], [[1]], None, "row 0 has a negative gallery position"),
            ([[0, 1]], [[1], [0]], None, "1 rows for the 2 queries"),
            ([[0.0]], [[1]], None, "expected integers"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, ranks, positives, gallery, message):
        with pytest.raises(InputError, match=message):
            mean_average_precision_at_k(ranks, positives, num_gallery=gallery)


@st.composite
def recognitions(draw):
    """(predicted, confidence, truth) of a few queries over four landmarks; equal confidences happen."""
    queries = draw(st.integers(0, 8))
    landmarks = st.integers(0, 3)
    return (
        [draw(st.integers(-1, 3)) for _ in range(queries)],
        [draw(st.integers(0, 5)) / 5 for _ in range(queries)],
        [draw(st.lists(landmarks, max_size=2)) for _ in range(queries)],
    )


class TestGlobalAveragePrecision:
    @given(recognitions())
    def test_it_equals_the_obvious_one(self, case):
        predicted, confidence, truth = case
        order = sorted(
            (query for query in range(len(truth)) if predicted[query] >= 0), key=lambda query: -confidence[query]
        )
        hits, total = 0, 0.0
        for i, query in enumerate(order, start=1):
            if predicted[query] in truth[query]:
                hits += 1
                total += hits / i
        shown = sum(1 for landmarks in truth if landmarks)
        expected = total / shown if shown else math.nan
        np.testing.assert_allclose(global_average_precision(predicted, confidence, truth), expected, rtol=0, atol=1e-12)

    def test_answers_known_by_hand(self):
        # Right, wrong (no landmark there), right: (1/1 + 2/3) / 3 queries with a landmark, one of them without an
        # answer.
        truth = [[7], [], [8, 9], [7]]
        assert global_average_precision([7, 7, 9, -1], [0.9, 0.5, 0.1, np.nan], truth) == pytest.approx((1 + 2 / 3) / 3)
        assert global_average_precision([7, 7, 9, 7], [4, 1, 3, 2], truth) == pytest.approx(1)
        assert global_average_precision([7, 1], np.uint8([0, 1]), [[7], [8]]) == pytest.approx(1 / 4)
        assert math.isnan(global_average_precision([1], [1.0], [[]])) and math.isnan(
            global_average_precision([], [], [])
        )

    @pytest.mark.parametrize(
        "predicted, confidence, message",
        [
            ([1, 2], [0.5], "a confidence for each of 2 queries"),
            ([1], [0.5, 0.5], "a confidence for each of 2 queries"),
            ([0.5, 1], [0.5, 0.5], "expected an integer landmark"),
            ([1, 2], [0.5, np.nan], "confidence of query 1 is not finite"),
            ([-1, 2], [0.5, np.inf], "confidence of query 1 is not finite"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, predicted, confidence, message):
        with pytest.raises(InputError, match=message):
            global_average_precision(predicted, confidence, [[1], [2]])
