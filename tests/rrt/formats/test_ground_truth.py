"""Ground truth and neighbour tables; pickles that name anything but plain data are refused."""

import copyreg
import io
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.files.safe_pickle import safe_load_pickle
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth, save_pickle
from rrt.search.table import load_neighbors, save_neighbors

PROTOCOLS = range(6)


def write_bytes(folder, content, name="file.pkl"):
    path = folder / name
    path.write_bytes(content)
    return path


def entry(easy=(), hard=(), junk=(), bbx=(0.0, 0.0, 9.0, 9.0)):
    return {"bbx": list(bbx), "easy": list(easy), "hard": list(hard), "junk": list(junk)}


def truth(**changes):
    return {"imlist": ["a", "b", "c"], "qimlist": ["q"], "gnd": [entry([0], [2], [1])]} | changes


PLAIN = [
    None,
    True,
    3,
    -(10**30),
    2.5,
    1 + 2j,
    "text",
    "Zürich 東京",
    b"\x00\xff",
    bytearray(b"ab"),
    (1, (2, 3)),
    [1, [2]],
    {"a": {1: 2}},
    {1, 2},
    frozenset("a"),
]
ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bc"]),
    np.arange(3, dtype=">i4"),
    np.zeros((0, 3), np.float32),
    np.array(5.0),
    np.array([True, False]),
    np.arange(3, dtype=np.float16),
    np.arange(10, dtype=np.int64)[::2],
]
SCALARS = [np.float32(3), np.int64(-4), np.bool_(True), np.str_("abc"), np.dtype("<f4")]


class TestSafePickles:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_plain_values_load(self, tmp_path, protocol):
        for value in PLAIN:
            loaded = safe_load_pickle(write_bytes(tmp_path, pickle.dumps(value, protocol)))
            assert loaded == value and type(loaded) is type(value), value

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_arrays_load_as_plain_arrays(self, tmp_path, protocol):
        for value in ARRAYS:
            loaded = safe_load_pickle(write_bytes(tmp_path, pickle.dumps({"x": [value, value]}, protocol)))["x"]
            assert len(loaded) == 2
            for array in loaded:
                assert type(array) is np.ndarray and array.shape == value.shape, value
                assert array.dtype in (value.dtype.newbyteorder("="), value.dtype), value
                assert np.array_equal(array, value), value

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_numpy_scalars_and_types_load(self, tmp_path, protocol):
        for value in SCALARS:
            loaded = safe_load_pickle(write_bytes(tmp_path, pickle.dumps(value, protocol)))
            assert loaded == value and type(loaded) is type(value), value

    @pytest.mark.parametrize("ours, theirs", [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")])
    def test_arrays_of_numpy_1_and_2_load(self, tmp_path, ours, theirs):
        written = pickle.dumps(np.arange(5), 2).replace(ours, theirs)
        assert safe_load_pickle(write_bytes(tmp_path, written)).tolist() == [0, 1, 2, 3, 4]

    def test_arrays_and_text_of_python_2_load(self, tmp_path):
        # As Python 2 wrote them with protocol 2: byte strings where Python 3 has text and bytes.
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
            b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x07\x00\x00\x00\xff\xff\xff\xfftb"
        )
        loaded = safe_load_pickle(write_bytes(tmp_path, b"\x80\x02}U\x04easy" + array + b"s."))
        assert list(loaded) == ["easy"] and loaded["easy"].tolist() == [7, -1]

    def test_loading_leaves_the_types_of_numpy_alone(self, tmp_path):
        safe_load_pickle(write_bytes(tmp_path, pickle.dumps(np.arange(3, dtype=">i8"))))
        assert np.dtype("i8").byteorder == "=" and np.dtype("i8") == np.int64

    def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/exploded",)

        path = write_bytes(tmp_path, pickle.dumps({"imlist": Bomb()}))
        for load in (safe_load_pickle, load_ground_truth, load_neighbors):
            with pytest.raises(InputError, match=r"file.pkl: refused, the pickle asks for '(posix|nt|os).system'"):
                load(path)
        assert not (tmp_path / "exploded").exists()
        pickle.loads(path.read_bytes())
        assert (tmp_path / "exploded").exists(), "the pickle of this test is harmless"

    @pytest.mark.parametrize(
        "asked",
        [subprocess.Popen, eval, getattr, io.BytesIO, np.load, np.frombuffer, object, np.rec.recarray, pickle.loads],
        ids=lambda asked: asked.__name__,
    )
    def test_every_other_name_is_refused(self, tmp_path, asked):
        for protocol in PROTOCOLS:
            with pytest.raises(InputError, match=f"asks for '.*{asked.__name__}'"):
                safe_load_pickle(write_bytes(tmp_path, pickle.dumps([asked], protocol)))

    @pytest.mark.parametrize(
        "value",
        [
            np.array([{}, []], dtype=object),
            np.zeros(2, [("a", "i4")]),
            np.array(["2020-01-01"], "M8[D]"),
            np.ma.array([1]),
        ],
        ids=["objects", "records", "dates", "masked"],
    )
    def test_arrays_of_anything_but_numbers_and_text_are_refused(self, tmp_path, value):
        with pytest.raises(InputError, match="refused"):
            safe_load_pickle(write_bytes(tmp_path, pickle.dumps(value)))

    @pytest.mark.parametrize(
        "opcodes",
        [
            b"}%sK\x01s.",
            b"}(%sK\x01u.",
            b"(%sK\x01d.",
            b"\x8f(%s\x90.",
            b"(%s\x91.",
            b"cbuiltins\nset\n]%sa\x85R.",
            b"cbuiltins\nfrozenset\n]%sa\x85R.",
        ],
        ids=["SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "set", "frozenset"],
    )
    def test_a_key_whose_hash_would_never_end_is_refused(self, tmp_path, opcodes):
        pairs_of_pairs = b")" + b"".join(b"\x94h" + bytes([depth]) + b"\x86" for depth in range(60))
        path = write_bytes(tmp_path, b"\x80\x04" + opcodes % pairs_of_pairs)
        with pytest.raises(InputError, match="refused, the pickle asks for a key or member made of containers"):
            safe_load_pickle(path)

    def test_a_value_that_unfolds_far_beyond_its_file_is_refused(self, tmp_path):
        nested = [1] * 10
        for _ in range(8):
            nested = [nested] * 10
        endless = []
        endless.append(endless)
        for value in (nested, endless, [np.zeros(1000)] * 1000, {"gnd": [nested]}):
            with pytest.raises(InputError, match="refused, the pickle asks for the same containers over and over"):
                safe_load_pickle(write_bytes(tmp_path, pickle.dumps(value)))

    def test_a_type_of_objects_that_denies_it_is_refused(self, tmp_path):
        # numpy itself would take the eight bytes for the address of an object.
        state = b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85X\x01\x00\x00\x00b\x87R"
        kind = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R" + state
        path = write_bytes(tmp_path, b"\x80\x04" + array + b"(K\x01K\x01\x85" + kind + b"\x89C\x08AAAAAAAAtb.")
        with pytest.raises(InputError, match="refused, the pickle asks for a numpy array of 'O8'"):
            safe_load_pickle(path)

    def test_an_array_of_many_elements_without_bytes_is_refused(self, tmp_path):
        whole = pickle.dumps(np.zeros(3, [("a", "S0")])["a"], 2)
        huge = whole.replace(b"K\x03\x85", b"\x8a\x05\x00\x00\x00\x00\x01\x85")
        assert huge != whole
        with pytest.raises(InputError, match="refused"):
            safe_load_pickle(write_bytes(tmp_path, huge))

    def test_items_for_anything_but_a_dict_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="refused, the pickle asks for items of a list"):
            safe_load_pickle(write_bytes(tmp_path, b"\x80\x04]K\x01K\x02s."))

    def test_a_registered_extension_is_refused(self, tmp_path):
        copyreg.add_extension("os", "system", 240)
        try:
            with pytest.raises(InputError, match="refused, the pickle asks for the registered extension 240"):
                safe_load_pickle(write_bytes(tmp_path, b"\x80\x04\x82\xf0."))
        finally:
            copyreg.remove_extension("os", "system", 240)

    def test_a_state_for_a_function_of_the_reader_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="refused, the pickle asks for the state of"):
            safe_load_pickle(write_bytes(tmp_path, b"cnumpy\ndtype\nN}U\x0c__defaults__)s\x86b."))

    def test_an_array_state_with_a_wrong_length_is_refused(self, tmp_path):
        whole = pickle.dumps(np.arange(4, dtype=np.int64), 4)
        for shape in (3, 5, 255):
            with pytest.raises(InputError, match="array size"):
                safe_load_pickle(write_bytes(tmp_path, whole.replace(b"K\x04\x85", bytes([ord("K"), shape, 0x85]))))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"hello\n",
            b"\x80\x04",
            b"\x80\x63.",
            b"\x80\x04K\x01",
            b".",
            b"(lp0\n",
            b"\x82\x01.",
            b"Pxyz\n.",
            b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fK\x01.",
            b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00abc.",
            b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00abc.",
            b"\x80\x02K\x01r\xff\xff\xff\x7f",
            b"\x80\x05\x97.",
            b"(" * 1000,
            b"]" * 10 + b"a" * 20,
        ],
        ids=range(16),
    )
    def test_a_file_that_is_no_whole_pickle_is_one_line(self, tmp_path, content):
        path = write_bytes(tmp_path, content)
        with pytest.raises(InputError) as error:
            safe_load_pickle(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)

    def test_a_large_memo_number_needs_no_large_memory(self, tmp_path):
        content = b"\x80\x02K\x01r" + struct.pack("<I", 2**31 - 1) + b"."
        assert safe_load_pickle(write_bytes(tmp_path, content)) == 1

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match="nn.pkl: cannot be read .*No such file"):
            safe_load_pickle(tmp_path / "nn.pkl")

    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner)),
            max_leaves=15,
        ),
        st.sampled_from(PROTOCOLS),
    )
    def test_any_plain_value_comes_back(self, tmp_path_factory, value, protocol):
        path = write_bytes(tmp_path_factory.getbasetemp(), pickle.dumps(value, protocol))
        assert safe_load_pickle(path) == value

    @given(st.data())
    def test_a_changed_byte_gives_a_value_or_one_line(self, tmp_path_factory, data):
        whole = bytearray(pickle.dumps({"imlist": ["a", "b"], "gnd": [{"easy": np.arange(3), "bbx": [1.5, 2]}]}, 4))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path = write_bytes(tmp_path_factory.getbasetemp(), bytes(whole[: data.draw(st.integers(1, len(whole)))]))
        try:
            safe_load_pickle(path)
        except InputError as error:
            assert "\n" not in str(error)

    def test_a_failed_save_leaves_no_file(self, tmp_path):
        with pytest.raises(Exception, match="pickle"):
            save_pickle(tmp_path / "x.pkl", {"a": lambda: 0})
        assert list(tmp_path.iterdir()) == []


class TestGroundTruth:
    def test_positions_become_int64_and_boxes_floats(self, tmp_path):
        save_pickle(tmp_path / "gnd.pkl", truth(gnd=[entry([2, 0], [], [1], bbx=(1, 2, 3, 4))]))
        loaded = load_ground_truth(tmp_path / "gnd.pkl")
        assert loaded.imlist == ["a", "b", "c"] and loaded.qimlist == ["q"] and loaded.path == tmp_path / "gnd.pkl"
        assert loaded.gnd[0]["bbx"] == [1.0, 2.0, 3.0, 4.0]
        assert [loaded.gnd[0][grade].tolist() for grade in ("easy", "hard", "junk")] == [[2, 0], [], [1]]
        assert all(loaded.gnd[0][grade].dtype == np.int64 for grade in ("easy", "hard", "junk"))

    def test_arrays_serve_where_the_published_files_have_lists(self, tmp_path):
        arrays = {
            "bbx": np.array([0.0, 0, 5, 5]),
            "easy": np.array([0], np.int32),
            "hard": np.array([]),
            "junk": np.array([2], np.uint16),
        }
        save_pickle(tmp_path / "gnd.pkl", truth(imlist=np.array(["a", "b", "c"]), gnd=[arrays]))
        loaded = load_ground_truth(tmp_path / "gnd.pkl")
        assert loaded.imlist == ["a", "b", "c"] and loaded.gnd[0]["junk"].tolist() == [2]

    @pytest.mark.parametrize(
        "content, what",
        [
            ([1, 2], "not a Revisited ground truth"),
            ({"imlist": ["a"]}, "not a Revisited ground truth"),
            (truth(imlist=[]), "imlist must be a list of image names"),
            (truth(qimlist=[3]), "qimlist must be a list of image names"),
            (truth(imlist=["a", "b", "a"]), "imlist names 'a' twice"),
            (truth(gnd=[]), "gnd is 0 entries for the 1 queries"),
            (truth(gnd=5), "gnd is a int for the 1 queries"),
            (truth(gnd=[[]]), r"query 0 \('q'\): expected a dict with bbx, easy, hard and junk"),
            (truth(gnd=[{"bbx": [0, 0, 1, 1], "easy": [], "hard": []}]), "expected a dict with bbx"),
            (truth(gnd=[entry(bbx=(1, 2, 3))]), "not a box of four numbers"),
            (truth(gnd=[entry(bbx=(1, 2, 0, 5))]), "not a box of four numbers"),
            (truth(gnd=[entry(bbx=(1, 2, float("nan"), 5))]), "not a box of four numbers"),
            (truth(gnd=[entry(bbx=("a", 2, 3, 5))]), "not a box of four numbers"),
            (truth(gnd=[entry([3])]), "easy names position 3, imlist has 3 images"),
            (truth(gnd=[entry([], [-1])]), "hard names position -1"),
            (truth(gnd=[entry([0.5])]), "easy is not a list of positions"),
            (truth(gnd=[entry([], [], ["a"])]), "junk is not a list of positions"),
            (truth(gnd=[entry([[0], [1, 2]])]), "easy is not a list of positions"),
            (truth(gnd=[entry([1], [], [1])]), "position 1 is listed twice"),
            (truth(gnd=[entry([1, 1])]), "position 1 is listed twice"),
        ],
    )
    def test_a_ground_truth_that_does_not_fit_is_refused(self, tmp_path, content, what):
        save_pickle(tmp_path / "gnd.pkl", content)
        with pytest.raises(InputError, match=what) as error:
            load_ground_truth(tmp_path / "gnd.pkl")
        assert str(error.value).startswith(f"{tmp_path}/gnd.pkl: ") and "\n" not in str(error.value)

    def test_saved_ground_truth_is_plain_python(self, tmp_path):
        gnd = [{"bbx": np.array([0, 1, 2, 3]), "easy": np.array([1]), "hard": [0], "junk": []}]
        save_ground_truth(tmp_path / "gnd.pkl", ["a", "b"], ("q",), gnd)
        assert b"numpy" not in (tmp_path / "gnd.pkl").read_bytes()
        loaded = pickle.loads((tmp_path / "gnd.pkl").read_bytes())
        assert loaded == {"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [entry([1], [0], [], (0.0, 1.0, 2.0, 3.0))]}

    def test_wrong_ground_truth_is_not_saved(self, tmp_path):
        with pytest.raises(InputError, match="easy names position 7"):
            save_ground_truth(tmp_path / "gnd.pkl", ["a"], ["q"], [entry([7])])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "name, queries, gallery",
        [
            ("revisited/oxford5k/gnd_roxford5k.pkl", 70, 4993),
            ("revisited/paris6k/gnd_rparis6k.pkl", 70, 6322),
            ("landmarks/gnd_landmarks.pkl", 55, 324),
            ("oxford_mini/gnd_roxford_micro.pkl", 2, 51),
        ],
    )
    def test_published_files_load_and_save_unchanged(self, shared_data, tmp_path, name, queries, gallery):
        loaded = load_ground_truth(shared_data / name)
        assert (len(loaded.qimlist), len(loaded.imlist), len(loaded.gnd)) == (queries, gallery, queries)
        save_ground_truth(tmp_path / "gnd.pkl", loaded.imlist, loaded.qimlist, loaded.gnd)
        assert pickle.loads((tmp_path / "gnd.pkl").read_bytes()) == pickle.loads((shared_data / name).read_bytes())


class TestNeighbors:
    def test_a_table_comes_back_as_int64(self, tmp_path):
        save_neighbors(tmp_path / "nn.pkl", np.array([[2, 0], [1, 2]], dtype=np.int32))
        loaded = load_neighbors(tmp_path / "nn.pkl", rows=2, columns_below=3)
        assert loaded.tolist() == [[2, 0], [1, 2]] and loaded.dtype == np.int64
        loaded[0, 0] = 1  # a caller may reorder what it loaded

    def test_a_published_table_of_lists_loads(self, tmp_path):
        save_pickle(tmp_path / "nn.pkl", [[1, 2], [0, 2]])
        assert load_neighbors(tmp_path / "nn.pkl").tolist() == [[1, 2], [0, 2]]

    @pytest.mark.parametrize(
        "content, arguments, what",
        [
            ({"a": 1}, {}, "not a neighbour table"),
            (np.arange(3), {}, "not a neighbour table"),
            (np.zeros((2, 2)), {}, "not a neighbour table"),
            ([[1], [2, 3]], {}, "not a neighbour table"),
            (np.zeros((0, 4), np.int64), {}, "not a neighbour table"),
            (np.array([[0, 1]]), {"rows": 2}, "1 rows of neighbours for 2 queries"),
            (
                np.array([[0, 1], [5, 0]]),
                {"columns_below": 5},
                "row 1 names gallery position 5, the gallery has 5 images",
            ),
            (np.array([[0, -1]]), {}, "row 0 names gallery position -1"),
            (np.array([[0, 1, 2], [4, 2, 4]]), {}, "row 1 lists gallery position 4 twice"),
        ],
    )
    def test_a_table_that_does_not_fit_is_refused(self, tmp_path, content, arguments, what):
        save_pickle(tmp_path / "nn.pkl", content)
        with pytest.raises(InputError, match=what) as error:
            load_neighbors(tmp_path / "nn.pkl", **arguments)
        assert str(error.value).startswith(f"{tmp_path}/nn.pkl: ") and "prepare_topk" in str(error.value)
