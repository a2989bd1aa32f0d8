"""Ground truth between its forms, and from the text files of the original Oxford5k and Paris6k."""

import json
import struct

import numpy as np
import pytest
from commands import assert_one_line_error, run_tool
from scipy.io import loadmat, savemat

from rrt.errors import InputError
from rrt.evaluation.metrics import evaluate
from rrt.formats.ground_truth import convert, load_ground_truth, save_ground_truth
from rrt.formats.ground_truth_classic import convert_classic

FORMS = ("pkl", "json", "mat")


def entry(easy=(), hard=(), junk=(), bbx=(1.5, 2.0, 30.25, 40.0)):
    return {"bbx": list(bbx), "easy": list(easy), "hard": list(hard), "junk": list(junk)}


TRUTHS = {
    "several": (["a", "b", "Zürich 東京", "d"], ["q", "r"], [entry([0, 3], [2], [1]), entry([], [0])]),
    "one": (["a"], ["q"], [entry([0])]),
    "classic": (["a", "b", "c"], ["q"], [{"bbx": [0.0, 0.0, 5.0, 5.0], "good": [2], "ok": [], "junk": [0, 1]}]),
}


def as_lists(truth):
    return truth.imlist, truth.qimlist, [{key: list(values) for key, values in row.items()} for row in truth.gnd]


class TestForms:
    @pytest.mark.parametrize("source", FORMS)
    @pytest.mark.parametrize("target", FORMS)
    @pytest.mark.parametrize("name", TRUTHS)
    def test_every_form_becomes_every_other_unchanged(self, tmp_path, source, target, name):
        save_ground_truth(tmp_path / f"a.{source}", *TRUTHS[name])
        assert convert(tmp_path / f"a.{source}", tmp_path / f"b.{target}") == len(TRUTHS[name][1])
        assert as_lists(load_ground_truth(tmp_path / f"b.{target}")) == TRUTHS[name]

    def test_the_published_files_survive_the_round(self, shared_data, tmp_path):
        published = shared_data / "revisited" / "oxford5k" / "gnd_roxford5k.pkl"
        convert(published, tmp_path / "a.mat")
        convert(tmp_path / "a.mat", tmp_path / "a.json")
        convert(tmp_path / "a.json", tmp_path / "a.pkl")
        assert as_lists(load_ground_truth(tmp_path / "a.pkl")) == as_lists(load_ground_truth(published))

    def test_positions_count_from_1_in_matlab_and_from_0_elsewhere(self, tmp_path):
        for form in FORMS:
            save_ground_truth(tmp_path / f"a.{form}", *TRUTHS["several"])
        stored = loadmat(tmp_path / "a.mat")
        assert stored["gnd"].shape == (1, 2) and stored["imlist"].shape == (1, 4)
        assert stored["gnd"][0, 0]["easy"].tolist() == [[1.0, 4.0]] and stored["gnd"][0, 0]["bbx"].tolist() == [
            [1.5, 2, 30.25, 40]
        ]
        assert json.loads((tmp_path / "a.json").read_text())["gnd"][0]["easy"] == [0, 3]

    def test_the_command_says_what_it_wrote(self, tmp_path):
        save_ground_truth(tmp_path / "a.json", *TRUTHS["several"])
        finished = run_tool("tools/prepare_gnd.py", "convert", tmp_path / "a.json", tmp_path / "a.mat")
        assert (finished.returncode, finished.stdout) == (0, f"wrote {tmp_path}/a.mat: 2 queries\n")

    @pytest.mark.parametrize(
        "source, target, message",
        [
            ("a.json", "a.json", "a.json: is the source itself"),
            ("a.json", "a.txt", "a.txt: ground truth is kept in .pkl, .json or .mat files"),
            ("missing.json", "b.pkl", "missing.json: cannot be read .No such file"),
            ("missing.mat", "b.pkl", "missing.mat: cannot be read .No such file"),
        ],
    )
    def test_a_wrong_name_is_refused(self, tmp_path, source, target, message):
        save_ground_truth(tmp_path / "a.json", *TRUTHS["one"])
        with pytest.raises(InputError, match=message):
            convert(tmp_path / source, tmp_path / target)

    @pytest.mark.parametrize(
        "text, message",
        [
            (b"{", "a.json: not valid JSON"),
            (b"\xff", "a.json: not valid JSON"),
            (b"[" * 100_000, "a.json: not valid JSON"),
            (b"[]", "a.json: not a Revisited ground truth"),
            (b"1" * 5000, "a.json: not valid JSON"),
            (
                b'{"imlist": ["a"], "qimlist": ["q"], "gnd": [{"bbx": [0, 0, NaN, 1], "easy": [], "hard": [], "junk": '
                b"[]}]}",
                "bbx is not a box",
            ),
            (
                b'{"imlist": ["a"], "qimlist": ["q"], "gnd": [{"bbx": [0, 0, 1, 1], "good": [0], "easy": [], "junk": '
                b"[]}]}",
                "expected a dict with bbx, easy, hard and junk .or bbx, good, ok and junk.",
            ),
        ],
    )
    def test_damaged_json_is_refused(self, tmp_path, text, message):
        (tmp_path / "a.json").write_bytes(text)
        with pytest.raises(InputError, match=message):
            load_ground_truth(tmp_path / "a.json")

    def test_the_two_kinds_of_grades_do_not_mix(self, tmp_path):
        classic = TRUTHS["classic"][2][0]
        with pytest.raises(InputError, match="some queries are graded easy and hard, others good and ok"):
            save_ground_truth(tmp_path / "a.pkl", ["a", "b", "c"], ["q", "r"], [entry([0]), classic])


def element(order, kind, data):
    """One data element of a MAT-file, from the format's description."""
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(order, kind, shape, *parts, name=b""):
    head = [
        element(order, 6, struct.pack(order + "II", kind, 0)),
        element(order, 5, struct.pack(f"{order}{len(shape)}i", *shape)),
        element(order, 1, name),
    ]
    return element(order, 14, b"".join([*head, *parts]))


class TestMatlab:
    def truth(self, **changes):
        cells = np.empty((1, 2), dtype=object)
        cells[0, :] = ["a", "b"]
        record = {"bbx": [[0.0, 0.0, 1.0, 1.0]], "easy": [[1.0]], "hard": np.zeros((0, 0)), "junk": [[2.0]]}
        gnd = np.empty((1, 1), dtype=[(key, object) for key in record])
        gnd[0, 0] = tuple(np.array(value) for value in (record | changes.pop("entry", {})).values())
        return {"imlist": cells, "qimlist": cells[:, :1], "gnd": gnd} | changes

    @pytest.mark.parametrize("compressed", [False, True])
    @pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32, np.uint8, np.int64])
    @pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
    def test_numbers_of_every_kind_and_shape_are_read(self, tmp_path, compressed, kind, shape):
        positions = np.array([1, 2], dtype=kind).reshape(shape)
        content = self.truth(
            entry={"easy": positions, "junk": np.zeros((1, 0))}, more=np.eye(2), words="text", nothing=[]
        )
        savemat(tmp_path / "a.mat", content, do_compression=compressed)
        loaded = load_ground_truth(tmp_path / "a.mat")
        assert (loaded.imlist, loaded.qimlist) == (["a", "b"], ["a"]) and loaded.gnd[0]["bbx"] == [0, 0, 1, 1]
        assert [loaded.gnd[0][grade].tolist() for grade in ("easy", "hard", "junk")] == [[0, 1], [], []]

    @pytest.mark.parametrize("order, mark", [("<", b"IM"), (">", b"MI")])
    def test_files_of_both_byte_orders_with_text_in_16_bits_are_read(self, tmp_path, order, mark):
        def text(letters):
            return array(
                order,
                4,
                (1, len(letters)),
                element(order, 4, struct.pack(f"{order}{len(letters)}H", *map(ord, letters))),
            )

        def numbers(*values):
            return array(order, 6, (1, len(values)), element(order, 9, struct.pack(f"{order}{len(values)}d", *values)))

        keys = b"".join(key.ljust(8, b"\0") for key in (b"bbx", b"easy", b"hard", b"junk"))
        gnd = array(
            order,
            2,
            (1, 1),
            element(order, 5, struct.pack(order + "i", 8)),
            element(order, 1, keys),
            numbers(0, 0, 3, 4),
            numbers(2),
            element(order, 14, b""),
            numbers(),
            name=b"gnd",
        )
        header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x100) + mark
        (tmp_path / "a.mat").write_bytes(
            header
            + array(order, 1, (1, 2), text("Zürich"), text("b"), name=b"imlist")
            + array(order, 1, (1, 1), text("q"), name=b"qimlist")
            + gnd
        )
        loaded = load_ground_truth(tmp_path / "a.mat")
        assert (
            loaded.imlist == ["Zürich", "b"]
            and loaded.gnd[0]["bbx"] == [0, 0, 3, 4]
            and loaded.gnd[0]["easy"].tolist() == [1]
        )

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"gnd": "text"}, "gnd is a str for the 1 queries"),
            ({"gnd": np.eye(2)}, "gnd is a ndarray for the 1 queries"),
            ({"imlist": np.eye(2)}, "imlist must be a list of image names"),
            ({"entry": {"easy": [[0.0]]}}, "query 0: easy is not a list of positions in imlist, counted from 1"),
            ({"entry": {"easy": [[1.5]]}}, "query 0: easy is not a list of positions in imlist, counted from 1"),
            ({"entry": {"easy": [[np.inf]]}}, "query 0: easy is not a list of positions in imlist, counted from 1"),
            ({"entry": {"easy": [[3.0]]}}, "easy names position 2, imlist has 2 images"),
            ({"entry": {"easy": "text"}}, "easy is not a list of positions in imlist"),
            ({"entry": {"bbx": [[1.0]]}}, "bbx is not a box of four numbers"),
        ],
    )
    def test_a_file_that_holds_something_else_is_refused(self, tmp_path, changes, message):
        savemat(tmp_path / "a.mat", self.truth(**changes))
        with pytest.raises(InputError, match=message):
            load_ground_truth(tmp_path / "a.mat")

    @pytest.mark.parametrize(
        "content, message",
        [
            (b"", "not a whole MATLAB file"),
            (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "another version.*save it with -v7"),
            (b" " * 124 + b"\0\1IM", "not a Revisited ground truth"),
            (b" " * 124 + b"\0\1IM" + struct.pack("<II", 14, 2**31) + b"abc", "the file ends early"),
        ],
    )
    def test_a_file_that_is_no_mat_file_is_refused(self, tmp_path, content, message):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_ground_truth(tmp_path / "a.mat")


class TestClassic:
    def make(self, folder, prefix="oxc1_"):
        for name in ("all_souls_000013", "all_souls_000001", "keble_000002", "oxford_000009"):
            (folder / "jpg").mkdir(exist_ok=True)
            (folder / "jpg" / f"{name}.jpg").touch()
        texts = {
            "all_souls_1_query": f"{prefix}all_souls_000013 136.5 34.1 648.5 955.7\n",
            "all_souls_1_good": "all_souls_000013\n",
            "all_souls_1_ok": "all_souls_000001\n\n",
            "all_souls_1_junk": "",
            "keble_1_query": f"{prefix}keble_000002 1 2 3 4",
            "keble_1_good": "keble_000002",
            "keble_1_ok": "",
            "keble_1_junk": "oxford_000009\r\n",
        }
        (folder / "gt").mkdir()
        for name, text in texts.items():
            (folder / "gt" / f"{name}.txt").write_bytes(text.encode())
        return folder / "gt", folder / "jpg"

    @pytest.mark.parametrize("prefix", ["oxc1_", ""])
    def test_text_files_become_ground_truth_with_the_folder_as_gallery(self, tmp_path, prefix):
        assert convert_classic(*self.make(tmp_path, prefix), tmp_path / "gnd.pkl") == (2, {})
        truth = load_ground_truth(tmp_path / "gnd.pkl")
        assert truth.imlist == ["all_souls_000001", "all_souls_000013", "keble_000002", "oxford_000009"]
        assert truth.qimlist == ["all_souls_000013", "keble_000002"] and truth.gnd[0]["bbx"] == [
            136.5,
            34.1,
            648.5,
            955.7,
        ]
        assert [truth.gnd[0][grade].tolist() for grade in ("good", "ok", "junk")] == [[1], [0], []]
        assert truth.gnd[1]["junk"].tolist() == [3]
        assert evaluate([[1, 0, 2, 3], [3, 2, 1, 0]], truth.gnd)["classic"].map == 1.0

    def test_a_picture_that_is_not_there_is_refused_or_left_out(self, tmp_path):
        texts, pictures = self.make(tmp_path)
        (pictures / "oxford_000009.jpg").unlink()
        command = ["tools/prepare_gnd.py", "classic", texts, pictures, tmp_path / "gnd.json"]
        assert_one_line_error(run_tool(*command), "keble_1_junk.txt: names 'oxford_000009'", "--allow_missing")
        finished = run_tool(*command, "--allow_missing")
        assert finished.returncode == 0 and "left out oxford_000009, which keble_1_junk.txt names" in finished.stdout
        assert load_ground_truth(tmp_path / "gnd.json").gnd[1]["junk"].tolist() == []

    @pytest.mark.parametrize(
        "file, text, message",
        [
            ("keble_1_query.txt", "keble_000002 1 2 3", "expected one line 'image x1 y1 x2 y2'"),
            ("keble_1_query.txt", "keble_000002 1 2 3 x", "expected one line 'image x1 y1 x2 y2'"),
            ("keble_1_query.txt", "", "expected one line 'image x1 y1 x2 y2'"),
            ("keble_1_query.txt", "a 1 2 3 4\nb 1 2 3 4", "expected one line 'image x1 y1 x2 y2'"),
            ("keble_1_query.txt", "keble_000002 1 2 0 4", "bbx 1, 2, 0, 4 is not a box"),
            ("keble_1_ok.txt", "keble_000002", "gallery position 2 is listed twice among good, ok, junk"),
            ("keble_1_ok.txt", None, "keble_1_ok.txt: cannot be read .No such file"),
        ],
    )
    def test_a_damaged_text_file_is_refused(self, tmp_path, file, text, message):
        texts, pictures = self.make(tmp_path)
        (texts / file).unlink()
        if text is not None:
            (texts / file).write_text(text)
        with pytest.raises(InputError, match=message):
            convert_classic(texts, pictures, tmp_path / "gnd.pkl")
        assert not (tmp_path / "gnd.pkl").exists()

    def test_empty_folders_are_refused(self, tmp_path):
        texts, pictures = self.make(tmp_path)
        with pytest.raises(InputError, match="no <landmark>_<n>_query.txt in it"):
            convert_classic(pictures, pictures, tmp_path / "gnd.pkl")
        with pytest.raises(InputError, match="no images in it"):
            convert_classic(texts, texts, tmp_path / "gnd.pkl")
        with pytest.raises(InputError, match="no such folder"):
            convert_classic(tmp_path / "x", pictures, tmp_path / "gnd.pkl")

    def test_the_original_files_of_oxford5k_are_read(self, shared_data, tmp_path):
        mini = shared_data / "oxford_mini"
        by_landmark = json.loads((mini / "oxford5k_groundtruth_by_landmark.json").read_text())
        for landmark, names in by_landmark.items():
            for number, query in enumerate(names["query"], start=1):
                file = f"{tmp_path}/{landmark}_{number}_"
                with open(f"{file}query.txt", "w") as out:
                    out.write(f"oxc1_{query.removesuffix('.jpg')} 0 0 99 99\n")
                for grade in ("good", "ok", "junk"):
                    with open(f"{file}{grade}.txt", "w") as out:
                        out.writelines(name.removesuffix(".jpg") + "\n" for name in names[grade])
        queries, missing = convert_classic(tmp_path, mini / "jpg", tmp_path / "gnd.pkl", allow_missing=True)
        truth = load_ground_truth(tmp_path / "gnd.pkl")
        assert queries == 55 and missing and len(truth.imlist) == 53
        kept = {truth.imlist[row] for row in truth.gnd[0]["good"]}
        assert kept == {name[:-4] for name in by_landmark["all_souls"]["good"]} & set(truth.imlist)
