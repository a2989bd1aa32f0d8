"""tools/learn_whitening.py: what it learns is what the search applies; one clear line for bad input."""

import numpy as np
import pytest
from builders import make_store
from commands import assert_one_line_error, error_of, files_below, run_tool

from rrt.commands.learn_whitening import main
from rrt.formats.lists import write_image_list
from rrt.search.learning import learn_whitening
from rrt.search.whitening import fit_pca_whitening, fit_supervised_whitening, load_whitening

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


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["absent.h5", "w.npz"], ["absent.h5"]),
        (["delg_test.h5", "w.npz", "--list", "absent.txt"], ["absent.txt"]),
        (["delg_test.h5", "w.npz", "--list", "empty.txt"], ["empty.txt", "empty"]),
        (["delg_test.h5", "w.npz", "--list", "new.txt"], ["delg_test.h5", "'jpg/new.jpg'", "line 1 of new.txt"]),
        (["delg_test.h5", "w.npz", "--dim", "17"], ["at most 16"]),
        (["delg_test.h5", "w.npz", "--dim", "0"], ["dim must be at least 1"]),
        (["delg_test.h5", "w.txt"], ["w.txt", ".npz"]),
        (["list.txt", "w.npz"], ["list.txt"]),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(store, tmp_path, arguments, parts):
    write_image_list(tmp_path / "list.txt", store.names, [0] * 30, [(1, 1)] * 30)
    write_image_list(tmp_path / "new.txt", ["jpg/new.jpg"], [0], [(1, 1)])
    (tmp_path / "empty.txt").write_text("")
    before = files_below(tmp_path)
    assert_one_line_error(run_tool(TOOL, *arguments, cwd=tmp_path), *parts)
    assert files_below(tmp_path) == before


def test_supervised_whitening_takes_the_labels_of_the_list_or_verified_pairs(store, tmp_path):
    write_image_list(tmp_path / "list.txt", store.names[:20], np.arange(20) // 4, [(1, 1)] * 20)
    x, path = store.global_descriptors[:20], tmp_path / "w.npz"
    learn_whitening(store.path, path, tmp_path / "list.txt", dim=4, method="supervised", shrinkage=0.2)
    expected = fit_supervised_whitening(x, 4, labels=np.arange(20) // 4, shrinkage=0.2)
    np.testing.assert_array_equal(load_whitening(path).projection, expected.projection)
    rows = [(3, 1, 9), (5, 2, 4), (0, 19, 12)]
    lines = [f"{store.names[first]},{store.names[second]},True,{inliers}" for first, second, inliers in rows]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,same,inliers", *lines]))
    for list_path, table in ((None, store.global_descriptors), (tmp_path / "list.txt", x)):
        for min_inliers, pairs in ((0, [[3, 1], [5, 2], [0, 19]]), (5, [[3, 1], [0, 19]])):
            learn_whitening(
                store.path, path, list_path, 4, 0.25, "supervised", tmp_path / "pairs.csv", None, min_inliers
            )
            expected = fit_supervised_whitening(table, 4, pairs=np.array(pairs), power=0.25)
            np.testing.assert_array_equal(load_whitening(path).projection, expected.projection)


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--method", "supervised"], "give --list, whose labels say which, or --pairs"),
        (["--method", "supervised", "--list", "alone.txt"], "no two images have the same label"),
        (["--pairs", "pairs.csv"], "--pairs and --shrinkage are for --method supervised"),
        (["--shrinkage", "0.5"], "--pairs and --shrinkage are for --method supervised"),
        (["--min_inliers", "3", "--method", "supervised", "--list", "alone.txt"], "give --pairs"),
        (["--method", "supervised", "--pairs", "absent.csv"], "absent.csv: no table of pairs"),
        (["--method", "supervised", "--pairs", "empty.csv"], "empty.csv: no table of pairs"),
        (["--method", "supervised", "--pairs", "delg_test.h5"], "delg_test.h5: no table of pairs"),
        (["--method", "supervised", "--pairs", "none.csv"], "no matching pairs"),
        (["--method", "supervised", "--pairs", "columns.csv"], "columns.csv: no column 'first'"),
        (["--method", "supervised", "--pairs", "pairs.csv"], "pairs.csv: names 'x', which is not in delg_test.h5"),
        (
            ["--method", "supervised", "--pairs", "pairs.csv", "--min_inliers", "9"],
            "pairs.csv: no pair has 9.0 inliers",
        ),
        (["--method", "supervised", "--pairs", "words.csv", "--min_inliers", "9"], "words.csv: line 2: inliers 'many'"),
        (["--method", "supervised", "--list", "list.txt", "--shrinkage", "2"], "shrinkage within 0..1"),
    ],
)
def test_bad_input_of_supervised_whitening_is_one_line(store, tmp_path, monkeypatch, capsys, arguments, part):
    write_image_list(tmp_path / "list.txt", store.names, [0] * 30, [(1, 1)] * 30)
    write_image_list(tmp_path / "alone.txt", store.names, range(30), [(1, 1)] * 30)
    for name, text in {
        "empty": "",
        "none": "first,second",
        "columns": "a,b\n1,2",
        "pairs": "first,second,inliers\nx,y,3\n",
        "words": "first,second,inliers\nx,y,many",
    }.items():
        (tmp_path / f"{name}.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    before = files_below(tmp_path)
    assert part in error_of(main, ["delg_test.h5", "w.npz", *arguments], monkeypatch, capsys)
    assert files_below(tmp_path) == before
