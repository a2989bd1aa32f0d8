"""tools/import_delg.py and tools/export_delg.py: the published layout in and out, and one clear line for bad input."""

from pathlib import Path

import numpy as np
import pytest
from builders import copy_golden_set, make_record, make_store
from commands import assert_one_line_error, files_below, run_tool
from delf_files import write_features

import rrt.store.importing_delg as tool
from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.formats.delf import LocalFeatures, read_datum, read_features, write_datum
from rrt.formats.lists import write_image_list
from rrt.search.exact import load_globals
from rrt.store.export import export_delg
from rrt.store.importing_delg import import_delg
from rrt.store.skipped import read_skipped
from rrt.store.store import Store
from rrt.store.writer import write_store

IMPORT, EXPORT = "tools/import_delg.py", "tools/export_delg.py"
NAMES = [f"jpg/a.b_{i}.jpg" for i in range(7)]
COUNTS = [4, 0, 3, 6, 1, 0, 5]
COLUMNS = ("descriptors", "keypoints", "scales", "attention")


def write_list(folder, names=NAMES, file="train.txt", size=(640, 480)):
    write_image_list(folder / file, names, [0] * len(names), [size] * len(names))


@pytest.fixture
def data_dir(tmp_path):
    """Seven random images, two of them without local descriptors: a float32 store, and its list."""
    make_store(tmp_path, names=NAMES, num_local=COUNTS, file_name="original.h5", local_dtype="float32")
    write_list(tmp_path)
    return tmp_path


@pytest.fixture
def published(data_dir):
    """The same as data_dir/delg_x/*.delg_global and *.delg_local."""
    assert export_delg(data_dir / "original.h5", data_dir / "delg_x") == (14, 0)
    return data_dir


def rewrite(path, **changes):
    features = read_features(path)
    write_features(path, LocalFeatures(**vars(features) | changes))


def assert_same_numbers(found, expected):
    with Store(found) as found, Store(expected) as expected:
        assert found.names == expected.names
        for column in ("image_size", "global_descriptors", "offsets", "local_descriptors"):
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), err_msg=column)
        everything = [store.read_packed(range(len(store))) for store in (found, expected)]
        for column in COLUMNS:
            np.testing.assert_array_equal(*(getattr(packed, column) for packed in everything), err_msg=column)


def assert_refused(call, *parts):
    """InputError of one line with every part in it."""
    with pytest.raises(InputError) as error:
        call()
    for part in parts:
        assert part in str(error.value), str(error.value)


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestRoundTrip:
    def test_a_float32_store_comes_back_to_the_last_bit(self, published):
        imported = import_delg(published, "x", local_dtype="float32")
        assert (imported.path, imported.num_images, imported.skipped) == (published / "delg_x.h5", 7, [])
        assert_same_numbers(imported.path, published / "original.h5")

    def test_files_come_back_to_the_last_bit(self, published):
        import_delg(published, "x", local_dtype="float32")
        export_delg(published / "delg_x.h5", published / "again")
        assert folder_bytes(published / "again") == folder_bytes(published / "delg_x")

    def test_real_delf_files_come_back_to_the_last_bit(self, shared_data, tmp_path):
        originals = {path.name: path.read_bytes() for path in (shared_data / "delf_files").glob("*.delf")}
        write_list(tmp_path, [f"{Path(name).stem}.jpg" for name in originals], size=(1024, 768))
        imported = import_delg(
            tmp_path, "delf", shared_data / "delf_files", local_suffix=".delf", global_suffix="", local_dtype="float32"
        )
        export_delg(imported.path, tmp_path / "again", local_suffix=".delf")
        assert folder_bytes(tmp_path / "again") == originals

    def test_descriptors_of_other_lengths_come_back_as_unit_rows(self, tmp_path):
        copy_golden_set(tmp_path)
        import_delg(tmp_path, "r50_gldv2", local_dtype="float32")
        export_delg(tmp_path / "delg_r50_gldv2.h5", tmp_path / "again")
        for path in sorted((tmp_path / "delg_r50_gldv2").iterdir()):
            if path.suffix == ".delg_global":
                assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
                continue
            original, again = read_features(path), read_features(tmp_path / "again" / path.name)
            lengths = np.linalg.norm(original.descriptors, axis=1, keepdims=True)
            assert lengths.min() > 10
            np.testing.assert_allclose(again.descriptors, original.descriptors / lengths, atol=1e-7)
            for column in COLUMNS[1:]:
                np.testing.assert_array_equal(getattr(again, column), getattr(original, column))


class TestImport:
    def test_the_command_gives_the_published_neighbours_and_figures(self, tmp_path):
        copy_golden_set(tmp_path)
        finished = run_tool(IMPORT, "with", f"data_dir={tmp_path}", "feature_name=r50_gldv2")
        assert (finished.returncode, finished.stderr) == (0, "")
        assert finished.stdout == f"wrote {tmp_path / 'delg_r50_gldv2.h5'}: 90 images\n"
        expected = np.load(tmp_path / "expected.npz")
        for use_aqe, prefix in ((False, "global"), (True, "aqe")):
            ranked = prepare_topk_revisited(tmp_path, "r50_gldv2", "gnd_mini.pkl", use_aqe)
            np.testing.assert_array_equal(ranked.nn_inds, expected["aqe_nn_inds" if use_aqe else "nn_inds"])
            for protocol, result in ranked.results.items():
                assert round(100 * result.map, 2) == expected[f"{prefix}_{protocol[0].upper()}_map"]
                np.testing.assert_array_equal(
                    np.round(100 * result.mp, 2), expected[f"{prefix}_{protocol[0].upper()}_mp"]
                )

    def test_images_of_one_file_name_have_files_in_the_folders_they_are_in(self, data_dir):
        names = ["a/x.jpg", "b/x.jpg", "b/church.1", "y.jpg"]
        store = make_store(data_dir, names=names, file_name="original.h5", local_dtype="float32")
        for number, place in enumerate(("a", "b", ".", ".")):
            one = write_store(data_dir / "one.h5", [store[number]], local_dtype="float32")
            export_delg(one, data_dir / "delg_x" / place)
        (data_dir / "delg_x/church.delg_local").rename(data_dir / "delg_x/church.1.delg_local")
        (data_dir / "delg_x/church.delg_global").rename(data_dir / "delg_x/church.1.delg_global")
        write_list(data_dir, names)
        assert_same_numbers(import_delg(data_dir, "x", local_dtype="float32").path, store.path)
        (data_dir / "delg_x/b/x.delg_local").unlink()
        (data_dir / "delg_x/a/x.delg_global").unlink()
        assert_refused(lambda: import_delg(data_dir, "x", overwrite=True), "train.txt:2: 'b/x.jpg' and 'a/x.jpg'")

    def test_the_store_holds_sizes_from_the_lists_and_half_floats_by_default(self, published):
        write_list(published, NAMES[:2], "test_query.txt", (200, 100))
        write_list(published, NAMES[2:], "test_gallery.txt", (640, 480))
        (published / "train.txt").unlink()
        with Store(import_delg(published, "x").path) as store:
            assert store.names == NAMES and store.attributes["desc_name"] == "x"
            assert store.image_size.tolist() == [[200, 100]] * 2 + [[640, 480]] * 5
            assert store.local_descriptors.dtype == np.float16

    def test_the_lists_choose_the_pictures_and_their_order(self, published):
        write_list(published, NAMES[5:1:-1], "few.txt")
        with Store(import_delg(published, "x", lists="few.txt").path) as store:
            assert store.names == NAMES[5:1:-1]
        with Store(
            import_delg(published, "x", lists=["few.txt", "train.txt"], output=published / "all.h5").path
        ) as store:
            assert store.names == NAMES[5:1:-1] + NAMES[:2] + NAMES[6:]

    def test_max_local_keeps_those_of_highest_attention(self, published):
        rewrite(published / "delg_x" / "a.b_0.delg_local", attention=np.float32([1, 4, 2, 4]))
        original = read_features(published / "delg_x" / "a.b_0.delg_local")
        with Store(import_delg(published, "x", local_dtype="float32", max_local=3).path) as store:
            assert store.local_counts().tolist() == np.minimum(COUNTS, 3).tolist()
            for column in COLUMNS:
                np.testing.assert_array_equal(getattr(store.read(0), column), getattr(original, column)[[1, 3, 2]])

    def test_one_kind_of_files_can_be_left_out(self, published):
        with Store(import_delg(published, "x", output=published / "global.h5", local_suffix="").path) as store:
            assert (store.global_dim, store.local_dim, store.offsets[-1]) == (16, 0, 0)
        with Store(import_delg(published, "x", output=published / "delg_x.h5", global_suffix="").path) as store:
            assert (store.global_dim, store.local_counts().tolist()) == (0, COUNTS)
        assert export_delg(published / "delg_x.h5", published / "local_only") == (7, 0)

    def test_a_store_without_global_descriptors_is_not_searched(self, published):
        import_delg(published, "x", global_suffix="")
        with pytest.raises(InputError, match="delg_x.h5: holds no global descriptors"):
            load_globals(published / "delg_x.h5", None)

    def test_a_stopped_run_goes_on_with_the_missing_parts(self, published, monkeypatch):
        read, files = read_features, []

        def stop_at_the_fifth(path):
            if len(files) == 4:
                raise KeyboardInterrupt
            files.append(path.stem)
            return read(path)

        monkeypatch.setattr("rrt.store.importing.BLOCK", 3)
        monkeypatch.setattr(tool, "read_features", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            import_delg(published, "x", local_dtype="float32")
        assert files_below(published / "delg_x.h5.parts") == ["part-00000.h5", "settings.json"]
        monkeypatch.setattr(tool, "read_features", lambda path: (files.append(path.stem), read(path))[1])
        imported = import_delg(published, "x", local_dtype="float32")
        assert files == [f"a.b_{i}" for i in (0, 1, 2, 3, 3, 4, 5, 6)]
        assert_same_numbers(imported.path, published / "original.h5")
        assert not (published / "delg_x.h5.parts").exists()

    def test_other_settings_need_overwriting(self, published):
        import_delg(published, "x")
        with pytest.raises(InputError, match='made with local_dtype = "float16", this run has "float32"'):
            import_delg(published, "x", local_dtype="float32")
        assert not import_delg(published, "x", local_dtype="float32", overwrite=True).was_there
        assert_same_numbers(published / "delg_x.h5", published / "original.h5")


def damage(folder, case):
    files = folder / "delg_x"
    if case == "missing files":
        (files / "a.b_3.delg_local").unlink()
        (files / "a.b_6.delg_global").unlink()
    elif case == "cut file":
        (files / "a.b_3.delg_local").write_bytes((files / "a.b_3.delg_local").read_bytes()[:-1])
    elif case == "not finite":
        rewrite(files / "a.b_3.delg_local", scales=np.full(6, np.nan, np.float32))
    elif case == "too small an image":
        write_datum(files / "a.b_3.delg_global", np.zeros(0))
    elif case == "swapped files":
        (files / "a.b_3.delg_local").write_bytes((files / "a.b_3.delg_global").read_bytes())
    elif case == "other dimensions":
        write_datum(files / "a.b_3.delg_global", np.ones(17))


class TestMissingFiles:
    @pytest.mark.parametrize(
        "case, parts",
        [
            (
                "missing files",
                ["delg_x/a.b_3.delg_local: no such file", "'jpg/a.b_3.jpg' (line 4 of train.txt)", "2 of 7"],
            ),
            ("cut file", ["delg_x/a.b_3.delg_local: cut short"]),
            ("not finite", ["delg_x/a.b_3.delg_local", "not finite"]),
            ("too small an image", ["delg_x/a.b_3.delg_global", "no global descriptor"]),
            ("swapped files", ["delg_x/a.b_3.delg_local"]),
        ],
    )
    def test_the_import_stops_and_names_the_file_unless_it_may_be_left_out(self, published, case, parts):
        damage(published, case)
        assert_refused(lambda: import_delg(published, "x"), *parts, "allow_missing=True")
        assert not (published / "delg_x.h5").exists()
        imported = import_delg(published, "x", allow_missing=True, local_dtype="float32", output=published / "most.h5")
        left_out = {"missing files": [3, 6]}.get(case, [3])
        assert [skipped.name for skipped in imported.skipped] == [NAMES[i] for i in left_out]
        assert read_skipped(imported.path) == imported.skipped and "a.b_3.delg_" in imported.skipped[0].reason
        with Store(imported.path) as store:
            assert store.names == [name for i, name in enumerate(NAMES) if i not in left_out]

    def test_a_mended_file_lets_the_import_go_on(self, published):
        whole = (published / "delg_x" / "a.b_3.delg_local").read_bytes()
        damage(published, "cut file")
        with pytest.raises(InputError):
            import_delg(published, "x")
        (published / "delg_x" / "a.b_3.delg_local").write_bytes(whole)
        assert import_delg(published, "x").num_images == 7

    def test_an_incomplete_store_of_an_earlier_run_is_told_apart(self, published):
        damage(published, "cut file")
        assert not import_delg(published, "x", allow_missing=True).was_there
        with pytest.raises(InputError, match=r"left out 1 of 7 images, first 'jpg/a.b_3.jpg'.*overwrite=True"):
            import_delg(published, "x")
        assert import_delg(published, "x", allow_missing=True).was_there


@pytest.mark.parametrize(
    "settings, parts",
    [
        ({"feature_name": "absent"}, ["delg_absent", "features_dir"]),
        ({"lists": "absent.txt"}, ["absent.txt"]),
        ({"lists": "doubled.txt"}, ["doubled.txt:2", "'jpg/a.b_0.jpg'", "line 1 of doubled.txt"]),
        ({"lists": ["train.txt", "cropped.txt"]}, ["cropped.txt:1", "200 x 100", "640 x 480 on line 1 of train.txt"]),
        ({"local_dtype": "int16"}, ["int16"]),
        ({"max_local": 0}, ["max_local=0", "at least 1"]),
        ({"max_local": "many"}, ["max_local='many'", "at least 1"]),
        ({"data_dir": "nowhere"}, ["nowhere", "train.txt"]),
        ({"local_suffix": "", "global_suffix": ""}, ["nothing to import"]),
    ],
)
def test_bad_input_is_named_in_one_line_and_nothing_is_written(published, settings, parts):
    write_list(published, ["other/a.b_0.jpg", NAMES[0]], "doubled.txt")
    write_list(published, NAMES[:1], "cropped.txt", (200, 100))
    before = files_below(published)
    assert_refused(lambda: import_delg(**{"data_dir": published, "feature_name": "x"} | settings), *parts)
    assert files_below(published) == before


def test_the_commands_end_with_one_line(published):
    (published / "delg_x" / "a.b_3.delg_local").unlink()
    finished = run_tool(IMPORT, "with", f"data_dir={published}", "feature_name=x", "lists=train.txt", "global_suffix=")
    assert_one_line_error(finished, "delg_x/a.b_3.delg_local: no such file")
    finished = run_tool(IMPORT, "with", f"data_dir={published}", "feature_name=x", "allow_missing=True", "max_local=3")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines() == [
        f"wrote {published / 'delg_x.h5'}: 6 images",
        "skipped jpg/a.b_3.jpg: no a.b_3.delg_local",
    ]


def test_files_of_other_dimensions_are_named(published):
    damage(published, "other dimensions")
    with pytest.raises(InputError, match="'jpg/a.b_3.jpg' has global descriptors of 17 dimensions"):
        import_delg(published, "x")


class TestExport:
    def test_the_command_writes_the_published_layout(self, data_dir):
        finished = run_tool(
            EXPORT, "with", f"data_dir={data_dir}", "feature_name=x", f"store={data_dir / 'original.h5'}"
        )
        assert (finished.returncode, finished.stdout, finished.stderr) == (
            0,
            f"wrote 14 files to {data_dir / 'delg_x'}\n",
            "",
        )
        with Store(data_dir / "original.h5") as store:
            for i in range(7):
                files = data_dir / "delg_x" / f"a.b_{i}"
                np.testing.assert_array_equal(read_datum(f"{files}.delg_global"), store.global_descriptors[i])
                features, local = read_features(f"{files}.delg_local"), store.read(i)
                np.testing.assert_array_equal(features.descriptors.reshape(-1, 8), local.descriptors)
                np.testing.assert_array_equal(features.keypoints, local.keypoints)
                assert not features.orientations.any()

    def test_a_second_run_writes_what_is_missing(self, published):
        before = folder_bytes(published / "delg_x")
        (published / "delg_x" / "a.b_3.delg_local").unlink()
        assert export_delg(published / "original.h5", published / "delg_x") == (1, 13)
        assert folder_bytes(published / "delg_x") == before

    def test_files_with_other_content_are_kept_unless_told_otherwise(self, published):
        before = folder_bytes(published / "delg_x")
        (published / "delg_x" / "a.b_3.delg_local").write_bytes(b"of the user")
        assert_refused(
            lambda: export_delg(published / "original.h5", published / "delg_x"),
            "a.b_3.delg_local",
            "other content",
            "overwrite=True",
        )
        assert (published / "delg_x" / "a.b_3.delg_local").read_bytes() == b"of the user"
        assert export_delg(published / "original.h5", published / "delg_x", overwrite=True) == (14, 0)
        assert folder_bytes(published / "delg_x") == before

    def test_max_local_keeps_those_of_highest_attention(self, published):
        export_delg(published / "original.h5", published / "two", max_local=2)
        assert len(read_features(published / "two" / "a.b_0.delg_local").scales) == 2
        with pytest.raises(InputError, match="max_local='two'"):
            export_delg(published / "original.h5", published / "two", max_local="two")

    def test_pictures_that_would_share_a_file_are_refused(self, tmp_path):
        generator = np.random.default_rng(0)
        write_store(tmp_path / "s.h5", [make_record(name, generator) for name in ("a/1.jpg", "b/1.jpg")])
        with pytest.raises(InputError, match="'a/1.jpg' and 'b/1.jpg' would have one file"):
            export_delg(tmp_path / "s.h5", tmp_path / "out")
        assert not (tmp_path / "out").exists()
