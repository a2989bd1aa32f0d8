"""rrt/network/pairs.py: the network's input as the published program makes it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN as GOLDEN_FILES

from rrt.errors import InputError
from rrt.formats.delf import read_features
from rrt.formats.lists import read_image_list
from rrt.network.pairs import lay_out_pairs, read_images, scale_index
from rrt.store.ranges import concatenated_ranges

GOLDEN = GOLDEN_FILES / "legacy_mini"
STORED = np.float32([4, 2.828427, 2, 1.4142135, 1, 0.70710677, 0.5])


def test_published_binning_puts_three_scales_one_bin_too_low():
    assert scale_index(STORED, "published").tolist() == [6, 4, 4, 2, 2, 0, 0]


def test_exact_binning_finds_every_scale():
    assert scale_index(STORED, "exact").tolist() == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("binning", ["published", "exact"])
def test_scales_outside_the_pyramid_take_the_nearest_end(binning):
    assert scale_index(np.float32([0, 0.1, 16]), binning).tolist() == [0, 0, 6]


def test_an_unknown_binning_is_named():
    with pytest.raises(InputError, match="published, exact"):
        scale_index(STORED, "nearest")


def test_golden_scale_indices_and_positions_of_the_queries():
    expected = np.load(GOLDEN / "expected.npz")
    queries = read_image_list(GOLDEN / "test_query.txt")
    for row, (name, size) in enumerate(zip(queries.names, queries.sizes)):
        local = read_features(GOLDEN / "delg_r50_gldv2" / f"{Path(name).stem}.delg_local")
        own = slice(len(local.scales))
        np.testing.assert_array_equal(scale_index(local.scales), expected["scale_index_query"][row, own])
        positions = local.keypoints / np.float32(size)
        np.testing.assert_allclose(positions, expected["positions_query"][row, own], rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=12))
def test_concatenated_ranges_equal_a_loop(ranges):
    expected = [row for start, size in ranges for row in range(start, start + size)]
    starts, sizes = (np.array([pair[side] for pair in ranges], np.int64) for side in (0, 1))
    assert concatenated_ranges(starts, sizes).tolist() == expected


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
def test_a_layout_of_pairs_equals_the_sequence_of_the_paper(counts, data):
    offsets = np.concatenate([[0], np.cumsum(counts)])
    image = st.integers(0, len(counts) - 1)
    pairs = data.draw(st.lists(st.tuples(image, image), max_size=5))
    rows, segments, lengths = [], [], []
    first_local = 1 + len(counts)
    for query, candidate in pairs:
        locals_ = [[first_local + row for row in range(offsets[i], offsets[i + 1])] for i in (query, candidate)]
        rows += [0, 1 + query, *locals_[0], 0, 1 + candidate, *locals_[1]]
        segments += [2, 4, *[0] * counts[query], 3, 5, *[1] * counts[candidate]]
        lengths.append(4 + counts[query] + counts[candidate])
    layout = lay_out_pairs(offsets, *(np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1)))
    assert layout.rows.tolist() == rows
    assert layout.segments.tolist() == segments
    assert layout.lengths.tolist() == lengths


def test_images_are_read_in_the_order_asked_for_and_cut_to_the_first_descriptors(make_store, tmp_path):
    store = make_store(tmp_path, n=4, num_local=[5, 0, 2, 7])
    batch = read_images(store, np.array([3, 1, 0, 3]), max_local=3)
    assert batch.counts.tolist() == [3, 0, 3, 3]
    np.testing.assert_array_equal(batch.descriptors[:3], store.read(3).descriptors[:3])
    np.testing.assert_array_equal(batch.descriptors[3:6], store.read(0).descriptors[:3])
    np.testing.assert_array_equal(batch.global_[1], store.global_descriptors[1])
    np.testing.assert_array_equal(batch.scales[:3], scale_index(store.read(3).scales[:3]))
    # Half as large to copy as what they become on the device.
    assert batch.descriptors.dtype == np.float16 and batch.scales.dtype == np.int64
