"""Exports: the reference's signatures, the numbers of the weights they are made of, and nothing written where something
is wrong."""

import sys
from dataclasses import replace
from functools import cache

import delg_exports as exports
import h5py
import numpy as np
import pytest
from commands import error_of, files_below
from delg_exports import plain_level, random_images, run_export, signature, strongest

from delg_extract import extract
from delg_extract.export import main, parser, requested_form
from delg_extract.extraction import serving
from delg_extract.extraction.delf_config import read_delf_config
from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Extractor
from delg_extract.extraction.saved_models import open_saved_model
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.tensorflow import tf
from delg_extract.network.weights import save_weights
from delg_extract.training import checkpoints
from rrt.store.store import Store

SCALES = (0.5, 0.7, 1.0, 1.4)
# docs/delg.md 4: type and shape of every input, and shape of every float32 output; D and E are filled in.
IMAGE = {"input_image": ("uint8", [None, None, 3])}
MULTI = {"input_scales": ("float32", [None])}
FEATURES = {"input_max_feature_num": ("int32", []), "input_abs_thres": ("float32", [])}
CHOSEN = {"input_global_scales_ind": ("int32", [None])}
LOCAL_OUTPUTS = {"boxes": [None, 4], "features": [None, "D"], "scales": [None], "scores": [None, 1]}
SIGNATURES = {
    "local": (IMAGE | MULTI | FEATURES, LOCAL_OUTPUTS),
    "local_and_global": (IMAGE | MULTI | FEATURES | CHOSEN, LOCAL_OUTPUTS | {"global_descriptors": [None, "E"]}),
    "global": (IMAGE | MULTI | CHOSEN, {"global_descriptors": [None, "E"]}),
    "pooled": (IMAGE | MULTI | CHOSEN, {"global_descriptor": ["E"]}),
    "kaggle": (IMAGE, {"global_descriptor": ["E"]}),
    "fixed": (IMAGE, {"global_descriptors": [None, "E"]}),
}


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """Also, a file that several exports are made of is read once."""
    with exports.tiny_backbone(), pytest.MonkeyPatch.context() as patch:
        plain = checkpoints.load_trained
        known = cache(lambda path, override: plain(path, **dict(override)))
        patch.setattr(checkpoints, "load_trained", lambda path, **override: known(path, tuple(override.items())))
        yield


@cache
def plain_level_once(model, scale, *size):
    return plain_level(model, random_images(*size)[0], scale)


def expected(model, image, scales, wanted, threshold, max_features):
    """What the weights say: every scale through the network as it is trained, the strongest features, the wanted global
    rows."""
    rows, found = [], []
    for i, scale in enumerate(scales):
        attention, descriptors, embedding = plain_level_once(model, scale, *image.shape[:2])
        if i in wanted:
            rows.append(embedding)
        for y, x in np.argwhere(attention >= threshold):
            corner = np.array([y, x, y, x]) * model.stride + (-145, -145, 145, 145)
            found.append((attention[y, x], *(corner / scale), 1 / scale, *descriptors[y, x]))
    found = np.array(sorted(found, key=lambda row: -row[0])[:max_features])
    return {
        "scores": found[:, :1],
        "boxes": found[:, 1:5],
        "scales": found[:, 5],
        "features": found[:, 6:],
        "global_descriptors": np.array(rows),
    }


DELF, PLAIN, DENSE = {"use_global": False}, {"local_dim": None}, {"block3_strides": False}
AGREEING = "--use_autoencoder --autoencoder_dimensions 24 --local_feature_map_channels 32 --delg_global_features"
AGREEING = [*AGREEING.split(), *"--delg_gem_power 3.0 --delg_embedding_layer_dim 48".split()]
EXPORTS = {  # {form: (network, flags)}
    "local": ({**DELF, **PLAIN}, ["--no-block3_strides"]),
    "local_and_global": ({}, AGREEING),
    "global": ({**DELF, **DENSE}, ["--normalize_global_descriptor"]),
    "pooled": ({}, ["--multi_scale_pool_type", "average"]),
    "kaggle": ({}, []),
    "fixed": ({}, ["--input_scales_list", "0.5,1.4"]),
}
KINDS = {"pooled": "global", "fixed": "global"}
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """form -> (network, folder of its export), each made once."""

    @cache
    def network_of(settings, dense):
        folder, model = tmp_path_factory.mktemp("network"), exports.tiny_model(**dict(settings))
        weights = save_weights(folder / "weights.h5", model, score_threshold=THRESHOLD)
        model.block3_strides &= not dense
        return model, weights

    @cache
    def exported(form):
        folder, (network, flags) = tmp_path_factory.mktemp("exported"), EXPORTS[form]
        model, weights = network_of(tuple(network.items()), "--no-block3_strides" in flags)
        source = ("--ckpt_path", weights, "--export_path", folder / "new/saved")
        with pytest.MonkeyPatch.context() as patch:
            run_export(patch, *source, "--kind", KINDS.get(form, form), *flags)
        return model, folder / "new/saved"

    return exported


@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_has_the_signature_of_the_reference_and_gives_the_numbers_of_the_weights(form, exported):
    (model, folder), (_, flags) = exported(form), EXPORTS[form]
    call = signature(folder)
    sizes = {"D": model.local_dim or 32, "E": 48 if model.use_global else 64}
    inputs, outputs = SIGNATURES[form]
    specs = call.structured_input_signature[1]
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()} == inputs
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in call.structured_outputs.items()} == {
        name: ("float32", [sizes.get(side, side) for side in shape]) for name, shape in outputs.items()
    }

    for size in ((97, 130), (128, 75)):
        image = random_images(*size)[0]
        given = {
            "input_image": image,
            "input_scales": SCALES,
            "input_global_scales_ind": [3, 1],
            "input_max_feature_num": 9,
            "input_abs_thres": 0.5,
        }
        scales, wanted = {"kaggle": ((0.70710677, 1.0, 1.4142135), (0, 1, 2)), "fixed": ((0.5, 1.4), (0, 1))}.get(
            form, (SCALES, (1, 3))
        )
        values = expected(model, image, scales, wanted, 0.5, 9)
        rows = values["global_descriptors"]
        values["global_descriptor"] = rows.mean(0) if form == "pooled" else rows.sum(0)
        if "--normalize_global_descriptor" in flags:
            values["global_descriptors"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        if form == "kaggle":
            values["global_descriptor"] /= np.linalg.norm(values["global_descriptor"])
        found = call(**{name: tf.constant(given[name], inputs[name][0]) for name in inputs})
        assert found.keys() == outputs.keys()
        for name in outputs:
            theirs = values[name]
            assert found[name].shape == theirs.shape, name
            assert np.abs(found[name].numpy() - theirs).max() <= 2e-5 * np.abs(theirs).max(), name


def test_unit_length_is_left_out_where_it_is_said():
    assert requested_form(parser().parse_args("--ckpt_path x --export_path x --kind kaggle".split()))["normalize"]
    said = "--ckpt_path x --export_path x --kind kaggle --no-normalize_global_descriptor"
    assert not requested_form(parser().parse_args(said.split()))["normalize"]


THREE = {"use_local": False, "scales": ExtractionSettings().scales[3:6], "global_scales": ()}


@pytest.mark.parametrize(
    "kind, asked", [("local_and_global", {}), ("local", {"use_global": False}), ("global", THREE), ("kaggle", THREE)]
)
def test_the_extractor_gives_the_same_of_export_and_weights_and_the_command_takes_the_configuration_beside_it(
    kind, asked, exported, pictures, monkeypatch
):
    (model, folder), settings = exported(kind), ExtractionSettings(score_threshold=THRESHOLD, **asked)
    image, plain = random_images(97, 130)[0], replace(settings, normalize_scales=kind != "kaggle")
    ours, theirs = (Extractor(source, plain)(image) for source in (open_saved_model(folder), DelgNetwork(model)))
    for name, value in theirs._asdict().items():
        if name == "global_descriptor" or settings.use_local:
            assert np.allclose(getattr(ours, name), value, atol=1e-5), name

    config = read_delf_config(folder / "delf_config.pbtxt")
    assert (config.settings, config.model_path, config.is_tf2_exported) == (settings, folder / "saved_model.pb", True)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "extract.py",
            "--config",
            str(folder / "delf_config.pbtxt"),
            "--image_dir",
            str(pictures),
            "--list",
            str(pictures / "train.txt"),
            "--output",
            str(pictures / "x.h5"),
            "--num_workers",
            "1",
        ],
    )
    assert extract.main() == 0
    with Store(pictures / "x.h5") as store:
        assert store.num_images == 8
        sizes = {"local_and_global": (48, 24), "local": (0, 32), "global": (64, 0), "kaggle": (48, 0)}
        assert (store.global_dim, store.local_dim) == sizes[kind]


# ---- wrong input and folders -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights") / "delg.h5", exports.tiny_model())


def test_flags_that_contradict_the_file_are_refused_and_both_are_named(weights, tmp_path, monkeypatch, capsys):
    for flag, words in (
        (["--no-use_autoencoder"], "has use_autoencoder True, --use_autoencoder says False"),
        (["--autoencoder_dimensions", "128"], "has autoencoder_dimensions 24, --autoencoder_dimensions says 128"),
        (["--local_feature_map_channels", "1024"], "has local_feature_map_channels 32, "),
        (["--no-delg_global_features"], "has delg_global_features True, "),
        (["--delg_gem_power", "2.5"], "has delg_gem_power 3, --delg_gem_power says 2.5"),
        (["--delg_embedding_layer_dim", "2048"], "has delg_embedding_layer_dim 48, "),
    ):
        error = error_of(
            main, ["--ckpt_path", weights, "--export_path", tmp_path / "m", *AGREEING, *flag], monkeypatch, capsys
        )
        assert str(weights) in error and words in error, error
    assert files_below(tmp_path) == []


def test_wrong_input_is_one_line_and_leaves_nothing(weights, tmp_path, monkeypatch, capsys):
    cut, empty, lacking, unfinished = (
        tmp_path / "cut.h5",
        tmp_path / "empty",
        tmp_path / "lacking.h5",
        tmp_path / "nan.h5",
    )
    cut.write_bytes(weights.read_bytes()[:3000])
    empty.mkdir()
    lacking.write_bytes(weights.read_bytes())
    with h5py.File(lacking, "r+") as file:
        del file["conv1/bias"]
    unfinished.write_bytes(weights.read_bytes())
    with h5py.File(unfinished, "r+") as file:
        file["conv1/bias"][0] = np.nan
    before = files_below(tmp_path)
    for path, flags, words in (
        (tmp_path / "no.h5", [], "no such weight file"),
        (cut, [], "cut.h5: not a readable HDF5 file"),
        (empty, [], "empty: neither weights.h5"),
        (lacking, [], "lacks variable 'conv1/bias'"),
        (unfinished, [], "not finite"),
        (weights, ["--kind", "global", "--iou", "0.5"], "--iou has no effect on --kind global"),
        (
            weights,
            ["--normalize_global_descriptor"],
            "--normalize_global_descriptor has no effect on --kind local_and_global",
        ),
        (weights, ["--kind", "local", "--multi_scale_pool_type", "sum"], "--multi_scale_pool_type has no effect"),
        (weights, ["--input_scales_list", "1"], "--input_scales_list has no effect"),
        (weights, ["--iou", "1.5"], "--iou 1.5"),
        (weights, ["--kind", "kaggle", "--input_scales_list", "1,,2"], "--input_scales_list 1,,2"),
        (weights, ["--kind", "global", "--input_scales_list", "1,-2"], "--input_scales_list 1,-2"),
        (weights, ["--kind", "global", "--input_scales_list", "nan"], "--input_scales_list nan"),
    ):
        assert words in error_of(
            main, ["--ckpt_path", path, "--export_path", tmp_path / "m", *flags], monkeypatch, capsys
        )
        assert files_below(tmp_path) == before


def test_a_folder_that_is_there_is_kept_unless_it_is_a_saved_model_that_may_be_replaced(
    weights, tmp_path, monkeypatch, capfd
):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    arguments = ["--ckpt_path", weights, "--export_path", folder, "--kind", "local"]
    assert "m: exists; choose another" in error_of(main, arguments, monkeypatch, capfd)
    assert "m: not the folder of a SavedModel" in error_of(main, [*arguments, "--overwrite"], monkeypatch, capfd)
    assert files_below(tmp_path) == ["m", "m/thesis.txt"]
    (folder / "saved_model.pb").write_bytes(b"older")
    assert "m: exists; choose another" in error_of(main, arguments, monkeypatch, capfd)

    def fail(folder, *_):
        folder.mkdir()
        raise OSError(28, "No space left on device", str(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "save_serving", fail)
        assert "no room is left on the disk; make room" in error_of(
            main, [*arguments, "--overwrite"], monkeypatch, capfd
        )
    assert files_below(tmp_path) == ["m", "m/saved_model.pb", "m/thesis.txt"]
    run_export(monkeypatch, *arguments, "--overwrite")
    assert capfd.readouterr() == (f"wrote {folder}\n", "")  # what TensorFlow says, too, would be here
    assert (
        strongest(folder) > 0
        and [path.name for path in tmp_path.iterdir()] == ["m"]
        and not (folder / "thesis.txt").exists()
    )
