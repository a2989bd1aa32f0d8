"""Damaged files of every small format: each is read or refused with the library's own error, soon and in little memory.

A crash or a hang of a reader ends the whole test run; the file that did it is then the last one in the test's folder.
"""

import json
import pickle
import time
import tracemalloc

import numpy as np
import pytest
from mutations import mutations
from scipy.io import loadmat, savemat

from rrt.errors import InputError
from rrt.formats.delf import LocalFeatures, read_datum, read_features, serialize_datum, serialize_features
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list
from rrt.search.table import load_neighbors

LIST = "".join(f"jpg/all_souls_{i:06d}.jpg,{i % 7},{1024 - i},{768 + i}\n" for i in range(12)).encode()
FOREIGN_LIST = (
    "\ufeff".encode()
    + "Zürich, See/東京 1.jpg, -1, 10, 20\r\nb.jpg,9223372036854775807,2147483647,1\r\nc.jpg,0,1,1".encode()
)
ENTRIES = [
    {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": [0, 3], "hard": [], "junk": [1]},
    {"bbx": [0, 0, 5, 5], "easy": [2], "hard": [4, 5], "junk": []},
]
TRUTH = {"imlist": [f"oxford_{i:06d}" for i in range(6)], "qimlist": ["keble_000001", "keble_000002"], "gnd": ENTRIES}
ARRAYS = {
    "imlist": np.array(TRUTH["imlist"]),
    "qimlist": tuple(TRUTH["qimlist"]),
    "gnd": [{key: np.array(value, None if value else np.int64) for key, value in entry.items()} for entry in ENTRIES],
}
TABLE = np.arange(40).reshape(4, 10) % 11


def matlab(folder):
    save_ground_truth(folder / "compressed.mat", **TRUTH)
    content = loadmat(folder / "compressed.mat")
    # Not compressed, or hardly any damage would get past the checksum.
    savemat(folder / "whole.mat", {name: content[name] for name in TRUTH})
    return (folder / "whole.mat").read_bytes()


def local_features():
    draw = np.random.default_rng(0)
    columns = draw.random((4, 9), dtype=np.float32)
    return serialize_features(LocalFeatures(draw.random((9, 16), dtype=np.float32), columns[:2].T, *columns[[2, 3, 0]]))


# name: (suffix, the whole file or a function of a folder that makes it, its reader, damaged copies)
FILES = {
    "image list": (".txt", LIST, read_image_list, 400),
    "image list of another editor": (".txt", FOREIGN_LIST, read_image_list, 400),
    "ground truth": (".pkl", pickle.dumps(TRUTH, 4), load_ground_truth, 200),
    "ground truth of arrays, protocol 2": (".pkl", pickle.dumps(ARRAYS, 2), load_ground_truth, 200),
    "ground truth as text, protocol 0": (".pkl", pickle.dumps(TRUTH, 0), load_ground_truth, 100),
    "neighbours": (".pkl", pickle.dumps(TABLE, 4), load_neighbors, 150),
    "neighbours, protocol 5": (".pkl", pickle.dumps(np.asfortranarray(TABLE), 5), load_neighbors, 100),
    "neighbours as lists": (".pkl", pickle.dumps(TABLE.tolist(), 3), load_neighbors, 100),
    "ground truth in JSON": (".json", json.dumps(TRUTH).encode(), load_ground_truth, 150),
    "ground truth of MATLAB": (".mat", matlab, load_ground_truth, 250),
    "local features": (".delg_local", local_features(), read_features, 500),
    "global descriptor": (".delg_global", serialize_datum(np.arange(32, dtype=np.float32)), read_datum, 100),
}
MOST_SECONDS, MOST_BYTES = 2, 64 << 20


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(name, tmp_path):
    suffix, whole, reader, count = FILES[name]
    path = tmp_path / f"damaged{suffix}"
    whole = whole(tmp_path) if callable(whole) else whole
    path.write_bytes(whole)
    reader(path)
    refused = 0
    tracemalloc.start()
    try:
        for number, damaged in enumerate(mutations(whole, count, seed=sum(name.encode()))):
            path.write_bytes(damaged)
            tracemalloc.reset_peak()
            # Of the processor, because a busy machine may let a reader wait.
            began = time.process_time()
            try:
                reader(path)
            except InputError as error:
                refused += 1
                assert str(error).startswith(str(path)) and "\n" not in str(error) and len(str(error)) < 1000, error
            assert time.process_time() - began < MOST_SECONDS, f"damaged copy {number} kept the reader busy"
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES, f"damaged copy {number} took much memory"
    finally:
        tracemalloc.stop()
    assert 0 < refused <= count
