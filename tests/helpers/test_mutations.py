"""The damage that other tests do to files is damage, and the same every time."""

import pytest
from mutations import mutations


@pytest.mark.parametrize("data", [b"", b"a", b"path,1,2,3\n", bytes(range(256)) * 20])
def test_every_copy_is_damaged_and_equal_seeds_give_equal_copies(data):
    copies = list(mutations(data, 300, seed=1))
    assert len(copies) == 300 and data not in copies
    assert copies == list(mutations(data, 300, seed=1)) != list(mutations(data, 300, seed=2))


def test_copies_differ_in_many_ways():
    copies = list(mutations(bytes(range(256)) * 20, 500, seed=0))
    assert len(set(copies)) > 490
    assert min(map(len, copies)) < 512 < 5120 < max(map(len, copies))
