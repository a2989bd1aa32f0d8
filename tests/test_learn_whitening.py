"""tools/learn_whitening.py: what it learns is what the search applies; one clear line for bad input."""

import numpy as np
import pytest
from builders import make_store
from commands import assert_one_line_error, files_below, run_tool

from rrt.lists import write_image_list
from rrt.neighbors import fit_pca_whitening, load_whitening
from tools.learn_whitening import learn_whitening

TOOL = "tools/learn_whitening.py"


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, n=30, num_local=1)


def test_whitening_is_learned_from_the_whole_store_or_from_a_list(store, tmp_path):
    x = store.global_descriptors
    write_image_list(tmp_path / "list.txt", store.names[:20], [0] * 20, [(1, 1)] * 20)
    for list_path, rows in ((None, x), (tmp_path / "list.txt", x[:20])):
        path = learn_whitening(store.path, tmp_path / "w.npz", list_path, dim=4, power=0.25)
        expected = fit_pca_whitening(rows, 4, 0.25)
        np.testing.assert_array_equal(load_whitening(path).projection, expected.projection)
        np.testing.assert_array_equal(load_whitening(path).mean, expected.mean)


def test_the_command_writes_the_file_it_names(store, tmp_path):
    finished = run_tool(TOOL, store.path, tmp_path / "w.npz", "--dim", 5)
    assert finished.returncode == 0 and finished.stdout == f"wrote {tmp_path / 'w.npz'}\n", finished.stderr
    assert load_whitening(tmp_path / "w.npz").projection.shape == (16, 5)


@pytest.mark.parametrize("arguments, parts", [
    (["absent.h5", "w.npz"], ["absent.h5"]),
    (["delg_test.h5", "w.npz", "--list", "absent.txt"], ["absent.txt"]),
    (["delg_test.h5", "w.npz", "--list", "empty.txt"], ["empty.txt", "empty"]),
    (["delg_test.h5", "w.npz", "--list", "new.txt"], ["delg_test.h5", "'jpg/new.jpg'", "line 1 of new.txt"]),
    (["delg_test.h5", "w.npz", "--dim", "17"], ["at most 16"]),
    (["delg_test.h5", "w.npz", "--dim", "0"], ["dim must be at least 1"]),
    (["delg_test.h5", "w.txt"], ["w.txt", ".npz"]),
    (["list.txt", "w.npz"], ["list.txt"]),
])
def test_bad_input_ends_with_one_line_and_writes_nothing(store, tmp_path, arguments, parts):
    write_image_list(tmp_path / "list.txt", store.names, [0] * 30, [(1, 1)] * 30)
    write_image_list(tmp_path / "new.txt", ["jpg/new.jpg"], [0], [(1, 1)])
    (tmp_path / "empty.txt").write_text("")
    before = files_below(tmp_path)
    assert_one_line_error(run_tool(TOOL, *arguments, cwd=tmp_path), *parts)
    assert files_below(tmp_path) == before
