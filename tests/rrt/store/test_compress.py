"""Stores of fewer bytes an image: the same images in order, cuts and types as written directly, read by every
reader."""

import tracemalloc

import h5py
import numpy as np
import pytest
from builders import datasets_of, make_records, make_store, unit_rows
from commands import error_of, files_below
from reranking import GLOBAL_DIM, LOCAL_DIM, NETWORK

from rrt.commands import compress_store as tool
from rrt.errors import InputError
from rrt.formats.lists import write_image_list
from rrt.network.model import RRT
from rrt.network.scorer import Scorer
from rrt.rerankers import make_method
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.codebook import Codebook
from rrt.store import compress as store_compress
from rrt.store.binary_codes import random_codes
from rrt.store.check import check_store
from rrt.store.compress import compress_store
from rrt.store.memory import MemoryStore
from rrt.store.records import Skipped
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.writer import write_store

NAMES = ["b.jpg", "a é.jpg", "c.jpg", "d.jpg", "e.jpg"]
COUNTS = [12, 0, 30, 1, 25]
SIZES = {"local_dim": 16, "global_dim": 12}
CODES = random_codes(16, 16, 1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(store_compress, "_IMAGES_PER_BLOCK", 2)


@pytest.fixture
def records():
    return make_records(NAMES, num_local=COUNTS, **SIZES)


@pytest.fixture
def store(tmp_path, records):
    return Store(
        write_store(
            tmp_path / "delg_x.h5", [*records, Skipped("f.jpg", "cut short")], "x", {"a": 1}, model_sha256="abc"
        )
    )


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("source", ["float32", "float16", "int8"])
@pytest.mark.parametrize("target, max_local", [(None, 10), ("float16", None), ("int8", 7), ("int8", None), (None, 0)])
def test_types_and_cuts_are_those_of_a_store_written_so(tmp_path, records, source, target, max_local, compression):
    path = write_store(tmp_path / "a.h5", records, local_dtype=source, compression=compression)
    again = compress_store(Store(path), tmp_path / "b.h5", target, max_local)
    read = list(MemoryStore.of(Store(path)))
    direct = [image.record() for image in read] if source == "int8" != target and target else records
    expected = datasets_of(write_store(tmp_path / "c.h5", direct, local_dtype=target or source, max_local=max_local))
    found = datasets_of(again)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        if name == "local/descriptors" and source == "float16" and target == "int8":
            # Rounded twice.
            assert np.abs(found[name].astype(int) - rows).max() <= 1
        else:
            np.testing.assert_array_equal(found[name], rows)
    assert Store(again).compression == (compression if max_local != 0 else None) and check_store(again).problems == []


def test_images_names_sizes_skipped_and_settings_stay(tmp_path, store):
    again = Store(compress_store(store, tmp_path / "b.h5", "bits", 5, "float16", CODES, {"codes": "random"}))
    assert again.names == store.names == NAMES and again.attributes == store.attributes
    np.testing.assert_array_equal(again.image_size, store.image_size)
    assert read_skipped(again.path) == read_skipped(store.path) == [Skipped("f.jpg", "cut short")]
    assert again.config["a"] == 1 and again.config["max_local"] == 5
    assert again.config["compressed"] == {
        "from": str(store.path),
        "from_local_dtype": "float16",
        "local_dtype": "bits",
        "global_dtype": "float16",
        "codes": "random",
    }
    for place in range(5):
        full, cut = store.read(place, 5), again.read(place)
        for name in ("keypoints", "scales", "attention"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(full, name))


def test_bits_take_their_bytes_and_are_read_as_the_codes_say(tmp_path, store):
    path = compress_store(store, tmp_path / "b.h5", "bits", codes=CODES)
    again = Store(path)
    stored = datasets_of(path)
    assert stored["local/descriptors"].shape == (sum(COUNTS), 2) and stored["local/descriptors"].dtype == np.uint8
    assert (again.local_dtype, again.local_dim, store.codes) == ("bits", 16, None)
    every = np.concatenate([store.read(place).descriptors for place in range(5)])
    expected = np.stack([CODES.decode(CODES.encode(row[None]))[0] for row in every])
    packed = again.read_packed([2, 1, 4, 2], max_local=6)
    rows = np.concatenate([np.arange(12, 18), np.arange(43, 49), np.arange(12, 18)])
    np.testing.assert_allclose(packed.descriptors, expected[rows], atol=1e-6)
    assert packed.descriptors.dtype == np.float32 and packed.offsets.tolist() == [0, 6, 6, 12, 18]
    np.testing.assert_allclose(again.read(4).descriptors, expected[43:], atol=1e-6)
    np.testing.assert_allclose(MemoryStore.of(again[:3]).read(2).descriptors, expected[12:42], atol=1e-6)
    check = check_store(path)
    assert (
        check.problems == []
        and check.summary["local descriptors"] == "16 dimensions in 16 bits, 68 in all, uncompressed"
    )
    cut = datasets_of(compress_store(again, tmp_path / "c.h5", max_local=3))
    np.testing.assert_array_equal(cut["local/descriptors"][:6], stored["local/descriptors"][[0, 1, 2, 12, 13, 14]])
    np.testing.assert_array_equal(cut["local/code_axes"], CODES.axes)


def test_global_halves_are_read_as_float32_rows(tmp_path, store):
    path = compress_store(store, tmp_path / "b.h5", global_dtype="float16")
    rows, exact = Store(path).global_descriptors, np.array(store.global_descriptors)
    halves = exact.astype(np.float16).astype(np.float32)
    assert rows.shape == (5, 12) and rows.dtype == np.float32 and len(rows) == 5
    for key in (2, slice(1, 4), [3, 0, 3], np.array([4]), slice(None)):
        assert rows[key].dtype == np.float32
        np.testing.assert_array_equal(rows[key], halves[key])
    np.testing.assert_array_equal(np.asarray(rows), halves)
    check = check_store(path)
    assert check.problems == [] and check.summary["global descriptors"] == "12 x float16"
    again = compress_store(Store(path), tmp_path / "c.h5", global_dtype="float32")
    np.testing.assert_array_equal(Store(again).global_descriptors, halves)


def test_every_reranker_reads_every_kind_of_store(tmp_path):
    store = make_store(tmp_path, n=8, num_local=[9, 3, 6, 0, 8, 7, 12, 5], global_dim=GLOBAL_DIM, local_dim=LOCAL_DIM)
    model = RRT(**NETWORK).eval()
    words = Codebook(unit_rows(np.random.default_rng(0), 3, LOCAL_DIM), {}).save(tmp_path / "words.npz")
    asmk = make_method("asmk", {"codebook": str(words)})
    codes = random_codes(LOCAL_DIM, LOCAL_DIM)
    kinds = {
        "int8": {"local_dtype": "int8"},
        "cut": {"max_local": 5},
        "bits": {"local_dtype": "bits", "codes": codes},
        "halves": {"global_dtype": "float16"},
    }
    places = np.arange(8)

    def scores_of(read, max_local=500):
        pairs = Scorer(model, read, max_local).score_pairs(np.argwhere(np.ones((8, 8))))
        space = SearchSpace(read, places, places)
        return pairs, np.stack(asmk.scores(space, [Shortlist(q, places, np.zeros(8)) for q in places]))

    found = {
        kind: scores_of(Store(compress_store(store, tmp_path / f"{kind}.h5", **how))) for kind, how in kinds.items()
    }
    expected = scores_of(store)
    for kind, tolerance in (("int8", 0.02), ("halves", 0.01)):
        for ours, theirs in zip(found[kind], expected):
            np.testing.assert_allclose(ours, theirs, atol=tolerance)
    np.testing.assert_allclose(found["cut"][0], scores_of(store, 5)[0], atol=1e-5)
    read = [image.record() for image in store]
    for record in read:
        record.descriptors[:] = codes.decode(codes.encode(record.descriptors))
    for ours, theirs in zip(found["bits"], scores_of(MemoryStore.of(read))):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize(
    "change, part",
    [
        ({"local/code_mean": None}, "do not say of what"),
        ({"local/code_axes": np.zeros((16, 16), np.int32)}, "do not say of what"),
        ({"local/code_axes": np.zeros((8, 16), np.float32)}, "do not fit"),
        ({"local/code_mean": np.zeros(15, np.float32)}, "do not fit"),
        ({"local/code_mean": np.full(16, np.nan, np.float32)}, "not finite"),
    ],
)
def test_damaged_codes_are_one_error(tmp_path, store, change, part):
    path = compress_store(store, tmp_path / "b.h5", "bits", codes=CODES)
    with h5py.File(path, "r+") as file:
        for name, values in change.items():
            del file[name]
            if values is not None:
                file[name] = values
    with pytest.raises(InputError, match=f"b.h5: .*{part}.*tools/compress_store.py"):
        Store(path)


def test_memory_is_bounded_by_a_block(tmp_path):
    path = make_store(tmp_path, n=24, num_local=500, local_dim=32).path
    codes = random_codes(32, 32)
    for how in ({"local_dtype": "int8"}, {"local_dtype": "bits", "codes": codes}):
        tracemalloc.start()
        compress_store(Store(path), tmp_path / "b.h5", **how)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * 2 * 500 * 32 * 4 < 24 * 500 * 32 * 4


def test_the_tool_learns_codes_and_says_the_bytes(tmp_path, store, monkeypatch, capsys):
    train = make_store(tmp_path, n=9, num_local=20, **SIZES)
    write_image_list(tmp_path / "list.txt", train.names[:6], [0] * 6, [(1, 1)] * 6)
    arguments = [
        store.path,
        tmp_path / "b.h5",
        "--local_dtype",
        "bits",
        "--bits",
        8,
        "--train",
        train.path,
        "--train_list",
        tmp_path / "list.txt",
        "--max_local",
        4,
    ]
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    tool.main()
    sizes = [path.stat().st_size / 5 for path in (tmp_path / "b.h5", store.path)]
    assert (
        capsys.readouterr().out
        == f"wrote {tmp_path / 'b.h5'}: {sizes[0]:,.0f} bytes an image instead of {sizes[1]:,.0f}\n"
    )
    note = Store(tmp_path / "b.h5").config["compressed"]
    assert (note["codes"], note["bits"], note["descriptors"]) == ("itq", 8, 120)
    first = (tmp_path / "b.h5").read_bytes()
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments), "--overwrite"])
    tool.main()
    assert (tmp_path / "b.h5").read_bytes() == first


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["absent.h5", "b.h5"], "absent.h5"),
        (["delg_x.h5", "delg_x.h5", "--overwrite"], "is the store that shall be compressed"),
        (["delg_x.h5", "list.txt"], "list.txt: exists"),
        (["delg_x.h5", "b.h5", "--max_local", "-1"], "--max_local -1"),
        (["delg_x.h5", "b.h5", "--local_dtype", "bits"], "delg_x.h5: --bits 128: binary codes of 128 bits for 16 dim"),
        (["delg_x.h5", "b.h5", "--local_dtype", "bits", "--bits", "9"], "delg_x.h5: --bits 9: "),
        (["delg_x.h5", "b.h5", "--local_dtype", "bits", "--seed", "-1"], "seed -1"),
        (["delg_x.h5", "b.h5", "--local_dtype", "int8", "--train", "delg_x.h5"], "--local_dtype bits alone"),
        (["delg_x.h5", "b.h5", "--local_dtype", "bits", "--train_list", "list.txt"], "--train_list"),
        (
            ["delg_x.h5", "b.h5", "--local_dtype", "bits", "--bits", "16", "--train", "wide.h5"],
            "wide.h5: local descriptors of 8",
        ),
        (
            ["delg_x.h5", "b.h5", "--local_dtype", "bits", "--bits", "16", "--train", "delg_x.h5", "--sample", "0"],
            "--sample 0",
        ),
        (
            ["delg_x.h5", "b.h5", "--local_dtype", "bits", "--bits", "16", "--train", "delg_x.h5", "--sample", "9"],
            "vary in",
        ),
        (["delg_x.h5", "b.h5", "--local_dtype", "bits", "--bits", "16", "--train", "absent.h5"], "absent.h5"),
        (["bits.h5", "b.h5", "--local_dtype", "int8"], "are bits already"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, store, monkeypatch, capsys, arguments, part):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path, file_name="wide.h5")
    compress_store(store, tmp_path / "bits.h5", "bits", codes=CODES)
    write_image_list(tmp_path / "list.txt", NAMES, [0] * 5, [(1, 1)] * 5)
    before = files_below(tmp_path)
    assert part in error_of(tool.main, arguments, monkeypatch, capsys)
    assert files_below(tmp_path) == before
