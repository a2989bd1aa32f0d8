"""tools/check_store.py finds every fault of a store and names its image."""

import tracemalloc

import h5py
import numpy as np
import pytest
from builders import make_records
from commands import assert_one_line_error, run_tool

from rrt.formats.lists import read_image_list, write_image_list
from rrt.store import check as store_check
from rrt.store.check import check_store
from rrt.store.records import Skipped
from rrt.store.schema import COMPRESSIONS
from rrt.store.store import Store
from rrt.store.values import LOCAL_DTYPES
from rrt.store.writer import write_store

TOOL = "tools/check_store.py"
NAMES = ["a b/é.jpg", "東京.jpg", "c.jpg", "d.jpg"]
COUNTS = [5, 0, 7, 9]


@pytest.fixture
def path(tmp_path):
    return write_store(tmp_path / "delg_x.h5", make_records(NAMES, num_local=COUNTS), "x", {"scales": [1, 2]})


def changed(path, name, rows, value):
    with h5py.File(path, "r+") as file:
        column = file[name][:]
        column[rows] = value
        file[name][:] = column
    return check_store(path)


@pytest.mark.parametrize("block", [1, 40, 10**6])
@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
@pytest.mark.parametrize("dtype", LOCAL_DTYPES)
def test_a_store_as_written_has_no_problems(tmp_path, monkeypatch, dtype, compression, block):
    monkeypatch.setattr(store_check, "_BLOCK_VALUES", block)
    # At the edges of what the writer keeps unscaled.
    records = list(make_records(NAMES, num_local=COUNTS))
    for record, factor in zip(records, (0.99901, 1, 1.00099, 3)):
        record.descriptors[:] *= np.float32(factor)
        record.global_[:] *= np.float32(factor)
    path = write_store(tmp_path / "delg_x.h5", records, local_dtype=dtype, compression=compression)
    check = check_store(path)
    assert (check.problems, check.num_problems, check.zero_rows) == ([], 0, 0)


# Rows 5 to 11 are of 'c.jpg', 12 to 20 of 'd.jpg'.
@pytest.mark.parametrize("block", [1, 40, 10**6])
@pytest.mark.parametrize(
    "name, rows, value, problem",
    [
        ("global", 1, np.nan, "'東京.jpg': the global descriptor is not finite"),
        ("global", 2, 0.3, "'c.jpg': the global descriptor is not of unit length"),
        ("global", 3, 0, "'d.jpg': the global descriptor is zero"),
        ("image_size", 0, 0, "'a b/é.jpg': the size of the image is [0, 0]"),
        ("local/descriptors", 4, np.inf, "'a b/é.jpg': descriptors not finite in 1 of 5 rows, the first is row 4"),
        ("local/descriptors", 20, 0.5, "'d.jpg': descriptors not of unit length in 1 of 9 rows, the first is row 8"),
        ("local/keypoints", 5, np.nan, "'c.jpg': keypoints not finite in 1 of 7 rows, the first is row 0"),
        ("local/scales", 6, np.inf, "'c.jpg': scales not finite in 1 of 7 rows, the first is row 1"),
        ("local/attention", 0, np.nan, "'a b/é.jpg': attention not finite in 1 of 5 rows, the first is row 0"),
        ("local/attention", 13, 1e9, "'d.jpg': attention rising in 1 of 9 rows, the first is row 1"),
    ],
)
def test_a_fault_is_found_in_its_image(path, monkeypatch, name, rows, value, problem, block):
    monkeypatch.setattr(store_check, "_BLOCK_VALUES", block)
    check = changed(path, name, rows, value)
    assert check.problems == [problem] and check.num_problems == 1


def test_an_int8_row_off_its_scale_is_found(tmp_path):
    path = write_store(tmp_path / "delg_x.h5", make_records(NAMES, num_local=COUNTS), local_dtype="int8")
    assert changed(path, "local/descriptors", slice(6, 8), 100).problems == [
        "'c.jpg': descriptors without a largest component of 127 in 2 of 7 rows, the first is row 1"
    ]
    assert changed(path, "local/descriptors", slice(6, 8), -128).num_problems == 1


def test_rows_of_zeros_are_counted_and_legal(path):
    check = changed(path, "local/descriptors", slice(1, 3), 0)
    assert check.problems == [] and check.summary["descriptors of length zero"] == "2"


def test_a_damaged_compressed_block_is_a_problem_and_the_others_are_still_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(store_check, "_BLOCK_VALUES", 2048)
    path = write_store(tmp_path / "delg_x.h5", make_records(NAMES, num_local=9000, local_dim=8), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["local/descriptors"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    check = check_store(path)
    assert 0 < check.num_problems < 36000 * 8 / 2048 and all("damaged" in problem for problem in check.problems)


def test_lacking_images_are_named_with_line_and_reason(tmp_path):
    path = write_store(tmp_path / "delg_x.h5", [*make_records(NAMES), Skipped("e.jpg", "cannot be decoded")])
    listed = [*NAMES[:2], "e.jpg", "f.jpg"]
    write_image_list(tmp_path / "list.txt", listed, [0] * 4, [(1, 1)] * 4)
    check = check_store(path, [read_image_list(tmp_path / "list.txt")])
    assert [problem.split(";")[0] for problem in check.problems] == [
        "no descriptors for 'e.jpg' (line 3 of list.txt), it was skipped: cannot be decoded",
        "no descriptors for 'f.jpg' (line 4 of list.txt)",
    ]
    assert check.summary["images"] == "4, 1 images skipped"


def test_the_command_describes_a_sound_store(path):
    finished = run_tool(TOOL, path)
    assert finished.returncode == 0, finished.stderr
    lines = dict(line.split(": ", 1) for line in finished.stdout.splitlines())
    assert lines["images"] == "4, 0 images skipped"
    assert lines["local descriptors"] == "8 x float16, 21 in all, uncompressed"
    assert lines["descriptors an image"] == "0 to 9, mean 5.2, median 6, none in 1 images"
    assert lines["size on disk"].startswith(f"{path.stat().st_size:,} bytes")
    assert lines["settings"] == '{"scales": [1, 2]}' and lines["desc_name"] == "x"


def test_the_command_counts_problems_beyond_those_it_shows(path, tmp_path):
    missing = [f"{i}.jpg" for i in range(30)]
    write_image_list(tmp_path / "list.txt", missing, [0] * 30, [(1, 1)] * 30)
    finished = run_tool(TOOL, path, "--list", tmp_path / "list.txt", "--show", 3)
    assert_one_line_error(finished, "delg_x.h5: 30 problems, 3 of them shown")
    assert finished.stdout.count("problem: ") == 3 and "problem: no descriptors for '2.jpg'" in finished.stdout


def test_what_is_no_store_is_one_error(tmp_path):
    (tmp_path / "x.h5").write_text("no")
    assert_one_line_error(run_tool(TOOL, tmp_path / "x.h5"), "x.h5", "not an HDF5 file")


def test_empty_stores_are_described(tmp_path):
    path = write_store(tmp_path / "delg_x.h5", make_records(["a"], num_local=0))
    assert Store(path).local_dim == 8 and check_store(path).problems == []


def test_memory_is_bounded_by_a_block(tmp_path, monkeypatch):
    path = write_store(tmp_path / "delg_x.h5", make_records(["a", "b"], num_local=20_000, local_dim=64))
    monkeypatch.setattr(store_check, "_BLOCK_VALUES", 64_000)
    tracemalloc.start()
    check_store(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 64_000 < 40_000 * 64 * 4 / 5
