"""Chains of methods, methods configured by a command's settings, and their measure (rrt/rerankers)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.rerankers.base import RerankMethod, Shortlist
from rrt.rerankers.chain import Chain, reorder


@dataclass(frozen=True)
class ByTable(RerankMethod):
    """Scores looked up by candidate."""

    depth: ClassVar[int | None] = 3
    pairwise: ClassVar[bool] = True
    table: tuple = ()

    def scores(self, space, shortlists):
        return [np.array([self.table[candidate] for candidate in each.candidates]) for each in shortlists]


@dataclass(frozen=True)
class Whole(ByTable):
    depth: ClassVar[int | None] = None


def shortlist(candidates, query=0):
    candidates = np.array(candidates, np.int64)
    return Shortlist(query, candidates, np.linspace(1, 0, len(candidates), dtype=np.float32))


def test_only_the_first_candidates_move_and_equal_scores_keep_their_order():
    method = ByTable((0, 5, 1, 1, 9))
    (found,) = reorder(None, method, [shortlist([2, 0, 3, 4, 1])])
    assert found.candidates.tolist() == [2, 3, 0, 4, 1]
    np.testing.assert_array_equal(found.similarities, shortlist([2, 0, 3, 4, 1]).similarities[[0, 2, 1, 3, 4]])
    (found,) = reorder(None, method, [shortlist([2, 0, 3, 4, 1])], depth=5)
    assert found.candidates.tolist() == [4, 1, 2, 3, 0]
    assert reorder(None, method, [shortlist([])])[0].candidates.tolist() == []


@settings(max_examples=50, deadline=None)
@given(
    st.permutations(range(7)),
    st.lists(st.integers(0, 3), min_size=7, max_size=7),
    st.lists(st.integers(0, 3), min_size=7, max_size=7),
)
def test_a_chain_orders_as_its_methods_one_after_the_other(order, first, second):
    methods = Whole(tuple(first)), ByTable(tuple(second))
    given_ = [shortlist(order)]
    step = reorder(None, methods[1], reorder(None, methods[0], given_))[0].candidates.tolist()
    chain = reorder(None, Chain(methods), given_)[0].candidates.tolist()
    slow = sorted(order, key=lambda c: -first[c])
    slow = sorted(slow[:3], key=lambda c: -second[c]) + slow[3:]
    assert chain == step == slow


def test_depths_of_a_chain_replace_the_methods_own():
    methods = Whole((0, 1, 2, 3)), ByTable((3, 2, 1, 0))
    (found,) = reorder(None, Chain(methods, (None, 2)), [shortlist([0, 1, 2, 3])])
    assert found.candidates.tolist() == [2, 3, 1, 0]
    with pytest.raises(InputError, match="2 methods"):
        Chain(methods, (1,))
