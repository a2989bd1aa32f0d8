"""The extraction command: stores, crops, images that cannot be read, kill -9 and going on."""

import os
import pickle
import sys

import h5py
import numpy as np
import pytest
from builders import datasets_of
from commands import error_of, kill_tool_when
from PIL import Image

from delg_extract.extract import main
from delg_extract.network.model import Delg
from delg_extract.network.weights import load_weights, save_weights
from rrt.errors import InputError
from rrt.formats.delf import read_datum, read_features
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list
from rrt.store.store import Store

pytestmark = pytest.mark.usefixtures("tiny", "opened_once")

NUM_IMAGES = 10


@pytest.fixture(scope="module")
def weights(tiny, tmp_path_factory):
    return save_weights(
        tmp_path_factory.mktemp("weights") / "small.h5", Delg("small", seed=3), dtype="float16", score_threshold=0.0
    )


@pytest.fixture
def folder(tmp_path):
    """Ten smooth random images, a list of them, and a ground truth whose query is cropped."""
    rng = np.random.default_rng(0)
    names = [f"jpg/image {i}.jpg" for i in range(NUM_IMAGES)]
    (tmp_path / "jpg").mkdir()
    for name in names:
        pixels = np.kron(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        Image.fromarray(pixels).save(tmp_path / name)
    sizes = np.full((NUM_IMAGES, 2), (160, 120))
    write_image_list(tmp_path / "test_query.txt", names[:1], np.zeros(1, int), sizes[:1])
    write_image_list(tmp_path / "test_gallery.txt", names[1:], np.zeros(NUM_IMAGES - 1, int), sizes[1:])
    save_ground_truth(
        tmp_path / "gnd.pkl",
        [n[4:-4] for n in names[1:]],
        [names[0][4:-4]],
        [{"bbx": [10.4, 20.6, 150.0, 110.0], "easy": [0], "hard": [], "junk": []}],
    )
    return tmp_path


def command(folder, weights, output, *extra):
    return [
        sys.executable,
        "delg_extract/extract.py",
        "--model",
        str(weights),
        "--image_dir",
        str(folder),
        "--list",
        str(folder / "test_gallery.txt"),
        "--query_list",
        str(folder / "test_query.txt"),
        "--ground_truth",
        str(folder / "gnd.pkl"),
        "--output",
        str(output),
        "--block",
        "2",
        "--num_workers",
        "1",
        *extra,
    ]


def run(*args):
    """The command in this process, where TensorFlow has been loaded -> its exit status."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", command(*args)[1:])
        return main()


def contents(path):
    with h5py.File(path) as file:
        return datasets_of(path), dict(file.attrs)


def test_killed_extraction_goes_on_to_an_equal_store(folder, weights, capsys):
    assert run(folder, weights, folder / "delg_whole.h5") == 0
    parts = folder / "delg_killed.h5.parts"
    picture = folder / "jpg/image 7.jpg"
    whole = picture.read_bytes()
    picture.unlink()
    os.mkfifo(picture)  # whoever reads it waits
    kill_tool_when(
        lambda: list(parts.glob("part-0000[1-9].h5")),
        *command(folder, weights, folder / "delg_killed.h5")[1:],
        tiny_delg=True,
    )
    picture.unlink()
    picture.write_bytes(whole)
    assert not (folder / "delg_killed.h5").exists()
    kept = {p: p.stat().st_mtime_ns for p in parts.glob("part-*.h5") if ".tmp" not in p.name}
    assert kept
    assert run(folder, weights, folder / "delg_killed.h5") == 0
    (first, first_attributes), (second, second_attributes) = (
        contents(folder / "delg_whole.h5"),
        contents(folder / "delg_killed.h5"),
    )
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name
    assert (first_attributes.pop("desc_name"), second_attributes.pop("desc_name")) == (b"whole", b"killed")
    assert first_attributes == second_attributes
    assert not parts.exists()
    assert run(folder, weights, folder / "delg_killed.h5") == 0 and "complete, nothing to do" in capsys.readouterr().out


def test_a_store_holds_every_image_and_queries_are_cropped(folder, weights):
    assert run(folder, weights, folder / "delg_x.h5") == 0
    with Store(folder / "delg_x.h5") as store:
        assert store.num_images == NUM_IMAGES
        assert (store.global_dim, store.local_dim) == (48, 128)
        query = store.index("jpg/image 0.jpg")
        assert store.image_size[query].tolist() == [140, 89]  # the box 10.4, 20.6, 150, 110 rounded to 10, 21, 150, 110
        assert store.image_size[store.index("jpg/image 1.jpg")].tolist() == [160, 120]
        assert np.allclose(np.linalg.norm(store.global_descriptors, axis=1), 1, atol=1e-5)
        local = store.read(query)
        assert len(local.descriptors) > 20
        assert (np.diff(local.attention) <= 0).all()
        assert set(np.round(local.scales.astype(float), 3)) <= {4, 2.828, 2, 1.414, 1, 0.707, 0.5}
    with pytest.raises(InputError, match="max_features"):
        run(folder, weights, folder / "delg_x.h5", "--max_features", "7")


def test_local_descriptors_are_kept_in_the_type_and_with_the_compression_asked_for(folder, weights, monkeypatch):
    monkeypatch.setattr(
        sys,
        "argv",
        command(folder, weights, folder / "delg_x.h5", "--local_dtype", "int8", "--compression", "gzip")[1:],
    )
    assert main() == 0
    with Store(folder / "delg_x.h5") as store:
        assert (store.local_dtype, store.compression) == ("int8", "gzip")
        assert np.allclose(np.linalg.norm(store.read(0).descriptors, axis=1), 1, atol=1e-5)
    monkeypatch.setattr(sys, "argv", command(folder, weights, folder / "delg_x.h5")[1:])
    with pytest.raises(InputError, match='local_dtype = "int8", this run has "float16"'):
        main()


def test_an_unreadable_image_is_listed_and_told_by_the_exit_status(folder, weights, monkeypatch, capsys):
    (folder / "jpg/image 3.jpg").write_bytes((folder / "jpg/image 3.jpg").read_bytes()[:300])
    (folder / "jpg/image 4.jpg").unlink()
    assert "2 of 10" in error_of(main, command(folder, weights, folder / "delg_x.h5")[2:], monkeypatch, capsys)
    skipped = (folder / "delg_x.h5.skipped.csv").read_text()
    assert "image 3" in skipped and "image 4" in skipped
    with Store(folder / "delg_x.h5") as store:
        assert store.num_images == NUM_IMAGES - 2
    assert run(folder, weights, folder / "delg_y.h5", "--allow_missing") == 0


def test_bad_input_gives_one_line_and_no_store(folder, weights, monkeypatch, capsys):
    cut = folder / "cut.h5"
    cut.write_bytes(weights.read_bytes()[:5000])
    empty = folder / "empty.txt"
    empty.write_text("")
    few = folder / "few.txt"
    few.write_text("jpg/image 1.jpg,0\n")
    base = ["--image_dir", str(folder), "--output", str(folder / "delg_bad.h5")]
    for arguments, words in (
        (["--weights", "missing.h5", "--list", str(folder / "test_gallery.txt")], "missing.h5"),
        (["--weights", str(cut), "--list", str(folder / "test_gallery.txt")], "cut.h5"),
        (["--weights", str(folder / "gnd.pkl"), "--list", str(folder / "test_gallery.txt")], "gnd.pkl"),
        (["--weights", str(weights), "--list", str(empty)], "empty.txt"),
        (["--weights", str(weights), "--list", str(few)], "few.txt:1"),
        (["--weights", str(weights), "--query_list", str(folder / "test_query.txt")], "--ground_truth"),
        (["--weights", str(weights)], "--list"),
        (["--list", str(folder / "test_gallery.txt")], "--model"),
        (
            ["--preset", "r50_gldv2", "--list", str(folder / "test_gallery.txt")],
            "download_weights.py r50delg_gldv2clean_20200914",
        ),
        (["--config", str(cut), "--list", str(folder / "test_gallery.txt")], "cut.h5"),
        (["--model", str(folder), "--list", str(folder / "test_gallery.txt")], "saved_model.pb"),
        (["--model", str(weights), "--list", str(folder / "test_gallery.txt"), "--scales", "1", "-2"], "--scales"),
        (
            ["--model", str(weights), "--list", str(folder / "test_gallery.txt"), "--global_scales", "7"],
            "--global_scales 7",
        ),
        (
            ["--model", str(weights), "--list", str(folder / "test_gallery.txt"), "--num_workers", "-1"],
            "--num_workers -1",
        ),
    ):
        assert words in error_of(main, [*base, *arguments], monkeypatch, capsys)
        assert not list(folder.glob("delg_bad*"))


def test_weights_survive_a_round_trip_and_refuse_another_network(weights, tmp_path):
    model = Delg("small", seed=3)
    for name, variable in load_weights(weights).variables_by_name.items():
        assert np.array_equal(
            variable.numpy(), model.variables_by_name[name].numpy().astype(np.float16).astype(np.float32)
        ), name
    with h5py.File(weights) as source, h5py.File(tmp_path / "lacking.h5", "w") as target:
        for key, value in source.attrs.items():
            target.attrs[key] = value
        for name in source:
            if name != "conv1":
                source.copy(name, target)
    with pytest.raises(InputError, match="conv1"):
        load_weights(tmp_path / "lacking.h5")


def run_here(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    return main()


def test_delf_files_hold_what_the_store_holds(folder, weights, monkeypatch):
    arguments = command(folder, weights, folder / "delg_x.h5", "--format", "delf", "--max_features", "20")[1:]
    assert run_here(monkeypatch, arguments) == 0
    with Store(folder / "delg_x.h5") as store:
        assert store.local_dtype == "float32"
        for i, name in enumerate(store.names):
            stem = folder / "delg_x" / name[4:-4]
            features, local = read_features(f"{stem}.delg_local"), store.read(i)
            assert np.array_equal(features.descriptors, local.descriptors) and np.array_equal(
                features.keypoints, local.keypoints
            )
            assert np.array_equal(read_datum(f"{stem}.delg_global"), store.global_descriptors[i])
    (folder / "delg_x/image 3.delg_local").unlink()
    assert run_here(monkeypatch, arguments) == 0  # the store is complete, one file is not
    assert (folder / "delg_x/image 3.delg_local").exists()


def test_a_calibrated_threshold_leaves_the_number_asked_for_and_is_remembered(folder, weights, monkeypatch, capsys):
    arguments = [*command(folder, weights, folder / "delg_x.h5")[1:], "--calibrate_threshold", "30"]
    crossed = []

    def as_if_in_another_process(*task):
        crossed.append(task[0])
        task, *given = pickle.loads(pickle.dumps(task))  # TensorFlow has been loaded in this one
        return task(*given)

    monkeypatch.setattr("delg_extract.extract.in_another_process", as_if_in_another_process)
    assert run_here(monkeypatch, arguments) == 0
    with Store(folder / "delg_x.h5") as store:
        counts = [len(store.read(i).attention) for i in range(store.num_images)]
        assert 30 <= np.mean(counts) <= 31 and len(set(counts)) > 1
    found = capsys.readouterr().out
    remembered = (folder / "delg_x.h5.threshold.json").read_bytes()
    (folder / "delg_x.h5").unlink()
    assert run_here(monkeypatch, arguments) == 0
    assert capsys.readouterr().out.splitlines()[0] == found.splitlines()[0]
    assert (folder / "delg_x.h5.threshold.json").read_bytes() == remembered
    with pytest.raises(InputError, match="features_per_image"):
        run_here(monkeypatch, [*arguments[:-1], "40"])
    with pytest.raises(InputError, match="cannot be kept"):
        run_here(monkeypatch, [*arguments[:-1], "100000", "--overwrite"])
    assert len(crossed) == 2  # none where it is remembered


def test_a_preset_sets_everything_but_the_threshold_of_other_weights(folder, weights, monkeypatch, capsys):
    assert (
        run_here(
            monkeypatch,
            [
                *command(folder, weights, folder / "delg_x.h5")[1:],
                "--preset",
                "r50_gldv2",
                "--scales",
                "0.5",
                "1",
                "--global_scales",
                "1",
            ],
        )
        == 0
    )
    with Store(folder / "delg_x.h5") as store:
        assert store.config["score_threshold"] == 0.0 and store.config["max_features"] == 1000
        assert store.config["scales"] == [0.5, 1.0] and store.config["global_scales"] == [1]
        assert store.config["precision"] == "float32"
    told = capsys.readouterr()
    left_out = f"attention threshold 454.6 is that of the published model and is left out for {weights}, which has 0;"
    assert left_out in told.err and f"{NUM_IMAGES} images, " in told.out and "local descriptors an image (" in told.out


def test_an_extraction_whose_threshold_leaves_no_local_descriptor_says_so(folder, weights, monkeypatch, capsys):
    arguments = [*command(folder, weights, folder / "delg_x.h5")[1:], "--scales", "1", "--global_scales", "0"]
    assert run_here(monkeypatch, [*arguments, "--score_threshold", "454.6"]) == 0
    told = capsys.readouterr()
    assert f"{NUM_IMAGES} images, 0.0 local descriptors an image (0 to 0)" in told.out
    assert f"{NUM_IMAGES} of {NUM_IMAGES} images have no local descriptors" in told.err
    assert "--score_threshold 454.6 may be that of another model" in told.err
    assert run_here(monkeypatch, [*arguments, "--no-use_local", "--overwrite"]) == 0
    assert "local descriptors" not in "".join(capsys.readouterr())


def test_a_configuration_file_of_the_reference_is_followed(folder, weights, monkeypatch):
    config = folder / "delf_config.pbtxt"
    config.write_text(f'''use_local_features: true use_global_features: true model_path: "{weights}"
        image_scales: 0.7071 image_scales: 1.0 max_image_size: 150
        delf_local_config {{ use_pca: false max_feature_num: 5 score_threshold: 0.0 }}
        delf_global_config {{ use_pca: false image_scales_ind: 1 }}''')
    arguments = command(folder, weights, folder / "delg_x.h5")[1:]
    del arguments[1:3]  # --model
    assert run_here(monkeypatch, [*arguments, "--config", config]) == 0
    with Store(folder / "delg_x.h5") as store:
        assert store.config["max_image_size"] == 150 and store.num_images == NUM_IMAGES
        assert max(len(store.read(i).attention) for i in range(store.num_images)) == 5


def test_images_in_batches_give_the_descriptors_of_single_ones(folder, weights, monkeypatch):
    assert run_here(monkeypatch, command(folder, weights, folder / "delg_one.h5")[1:]) == 0
    arguments = command(folder, weights, folder / "delg_many.h5", "--batch_size", "3", "--block", "8")[1:]
    assert run_here(monkeypatch, arguments) == 0
    one, many = contents(folder / "delg_one.h5")[0], contents(folder / "delg_many.h5")[0]
    for name in one:
        assert (
            np.allclose(one[name].astype(float), many[name].astype(float), atol=2e-3)
            if one[name].dtype.kind == "f"
            else np.array_equal(one[name], many[name])
        ), name
