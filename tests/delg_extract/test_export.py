"""Exports: the reference's signatures, the numbers of the weights they are made of, and nothing written where something
is wrong."""

import json
import sys
from dataclasses import replace

import delg_exports as exports
import h5py
import numpy as np
import pytest
import tensorflow as tf
from commands import error_of, files_below
from delg_exports import plain_level, random_images
from delg_golden import GOLDEN, assert_equals_golden, rule_model, saved_model_case

from delg_extract import extract
from delg_extract.export import main
from delg_extract.extraction import serving
from delg_extract.extraction.delf_config import read_delf_config
from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Extractor, LocalAndGlobal
from delg_extract.extraction.saved_models import open_saved_model
from delg_extract.extraction.serving import Form, save_serving
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.network.weights import save_weights
from delg_extract.training.losses import add_classifiers
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
    with exports.tiny_backbone():
        yield


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
    return main()


def signature(folder):
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


def expected(model, image, scales, wanted, threshold, max_features):
    """What the weights say: every scale through the network as it is trained, the strongest features, the wanted global
    rows."""
    rows, found = [], []
    for i, scale in enumerate(scales):
        attention, descriptors, embedding = plain_level(model, image, scale)
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


@pytest.mark.parametrize(
    "form, network, flags",
    [
        ("local", {}, []),
        ("local", {**DELF, **PLAIN}, []),
        ("local", {}, ["--no-block3_strides"]),
        ("local_and_global", {}, []),
        ("local_and_global", {**DELF, **DENSE}, []),
        ("global", {}, []),
        ("global", {**DELF, **PLAIN}, []),
        ("global", DENSE, ["--normalize_global_descriptor"]),
        ("pooled", {}, ["--multi_scale_pool_type", "average"]),
        ("kaggle", {}, []),
        ("kaggle", DELF, ["--no-normalize_global_descriptor"]),
        ("fixed", {}, ["--input_scales_list", "0.5,1.4"]),
    ],
    ids=str,
)
def test_an_export_has_the_signature_of_the_reference_and_gives_the_numbers_of_the_weights(
    form, network, flags, tmp_path, monkeypatch
):
    model = exports.tiny_model(**network)
    weights = save_weights(tmp_path / "weights.h5", model)
    kind = {"pooled": "global", "fixed": "global"}.get(form, form)
    run(monkeypatch, "--ckpt_path", weights, "--export_path", tmp_path / "saved", "--kind", kind, *flags)
    call = signature(tmp_path / "saved")
    sizes = {"D": model.local_dim or 32, "E": 48 if model.use_global else 64}
    inputs, outputs = SIGNATURES[form]
    specs = call.structured_input_signature[1]
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()} == inputs
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in call.structured_outputs.items()} == {
        name: ("float32", [sizes.get(side, side) for side in shape]) for name, shape in outputs.items()
    }

    if "--no-block3_strides" in flags:
        model.block3_strides = False
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
        if form == "kaggle" and not flags:
            values["global_descriptor"] /= np.linalg.norm(values["global_descriptor"])
        found = call(**{name: tf.constant(given[name], inputs[name][0]) for name in inputs})
        assert found.keys() == outputs.keys()
        for name in outputs:
            theirs = values[name]
            assert found[name].shape == theirs.shape, name
            assert np.abs(found[name].numpy() - theirs).max() <= 2e-5 * np.abs(theirs).max(), name


THREE = {"use_local": False, "scales": ExtractionSettings().scales[3:6], "global_scales": ()}


@pytest.mark.parametrize(
    "kind, asked", [("local_and_global", {}), ("local", {"use_global": False}), ("global", THREE), ("kaggle", THREE)]
)
def test_the_extractor_gives_the_same_of_export_and_weights_and_the_command_takes_the_configuration_beside_it(
    kind, asked, pictures, monkeypatch
):
    model = exports.tiny_model()
    folder, settings = pictures / "saved", ExtractionSettings(**{"score_threshold": 0.3, **asked})
    run(
        monkeypatch,
        "--ckpt_path",
        save_weights(pictures / "w.h5", model, score_threshold=0.3),
        "--export_path",
        folder,
        "--kind",
        kind,
    )
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
        assert store.global_dim == (48 if settings.use_global else 0) and store.local_dim == (
            24 if settings.use_local else 0
        )


def test_scales_too_small_for_the_network_are_left_out_and_no_scale_at_all_is_no_crash(tmp_path):
    model, picture = exports.tiny_model(), random_images(12, 40)[0]
    given = {
        "input_image": tf.constant(picture),
        "input_max_feature_num": tf.constant(100),
        "input_abs_thres": tf.constant(0.0),
    }
    save_serving(tmp_path / "both", model, Form())
    call = signature(tmp_path / "both")
    for scales, ind, rows, kept in (
        ([0.25, 0.5, 1.0], [0, 2], 1, {1.0, 2.0}),
        ([0.1, 0.2], [0, 1], 0, set()),
        ([], [0], 0, set()),
        ([1.0], [], 0, {1.0}),
        ([1.0], [5, -1], 0, {1.0}),
        ([1.0, 0.5], [1, 1, 0], 2, {1.0, 2.0}),
    ):
        found = call(
            **given, input_scales=tf.constant(scales, tf.float32), input_global_scales_ind=tf.constant(ind, tf.int32)
        )
        assert found["global_descriptors"].shape == (rows, 48)
        assert set(found["scales"].numpy().tolist()) == kept and found["features"].shape == (len(found["scores"]), 24)
    save_serving(tmp_path / "pooled", model, Form(local=False, pooling="sum"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="input_global_scales_ind names none of the scales"):
        signature(tmp_path / "pooled")(
            input_image=given["input_image"], input_scales=tf.constant([1.0]), input_global_scales_ind=tf.constant([1])
        )


def test_conv5_runs_at_the_wanted_scales_alone():
    model, seen = exports.tiny_model(), []
    with pytest.MonkeyPatch.context() as patch:
        plain = serving.Level.embedding

        def counted(self, conv4):
            with tf.control_dependencies([tf.numpy_function(lambda: seen.append(1) or np.int64(0), [], tf.int64)]):
                return plain(self, tf.identity(conv4))

        patch.setattr(serving.Level, "embedding", counted)
        level = serving.Level(model, serving.level_weights(model))
        given = {
            "input_image": tf.constant(random_images(64, 64)[0]),
            "input_scales": tf.constant(SCALES),
            "input_max_feature_num": tf.constant(5),
            "input_abs_thres": tf.constant(0.0),
            "input_global_scales_ind": tf.constant([2]),
        }
        for form in (Form(), Form(local=False)):
            seen.clear()
            assert (
                len(tf.function(lambda: serving.describe(level, form, given))()["global_descriptors"]) == len(seen) == 1
            )


def test_the_weights_of_heads_that_a_kind_does_not_use_are_not_in_its_folder(tmp_path):
    model = exports.tiny_model()
    for name, form in (("both", Form()), ("local", Form(global_=False)), ("global", Form(local=False))):
        save_serving(tmp_path / name, model, form)
    size = {
        name: sum(
            shape.num_elements()
            for shape in map(
                tf.TensorShape, dict(tf.train.list_variables(str(tmp_path / name / "variables/variables"))).values()
            )
        )
        for name in ("both", "local", "global")
    }
    conv5 = sum(int(tf.size(v)) for n, v in model.variables_by_name.items() if n.startswith(("res5", "embedding")))
    local = sum(
        int(tf.size(v)) for n, v in model.variables_by_name.items() if n.startswith(("attn_conv", "autoenc_conv1"))
    )
    assert (size["both"] - size["local"], size["both"] - size["global"]) == (conv5, local)


# ---- the reference's numbers -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "form, cases", [(Form(), ["a_all", "a_reordered", "b_top50", "a_none"]), (Form(iou=0.7), ["b_nms07"])], ids=str
)
def test_an_exported_resnet50_equals_the_export_of_the_reference(form, cases, tmp_path):
    save_serving(tmp_path / "m", rule_model(), form)
    images, call = np.load(GOLDEN / "seed1/images.npz"), signature(tmp_path / "m")
    for case in cases:
        settings, golden = saved_model_case(case)
        assert settings["iou"] == form.iou
        found = call(
            input_image=tf.constant(images[settings["image"]]),
            input_scales=tf.constant(settings["scales"], tf.float32),
            input_max_feature_num=tf.constant(settings["max_feature_num"]),
            input_abs_thres=tf.constant(settings["threshold"]),
            input_global_scales_ind=tf.constant(settings["global_scales_ind"]),
        )
        assert_equals_golden(serving_output(found), golden)


def serving_output(found):
    arrays = {name: value.numpy() for name, value in found.items()}
    return LocalAndGlobal(**{**arrays, "scores": arrays["scores"][:, 0]})


@pytest.mark.slow
def test_an_exported_kaggle_model_equals_that_of_the_reference(tmp_path, monkeypatch):
    model = rule_model()
    bare = type(model)(**model.settings)
    for name, variable in bare.variables_by_name.items():
        variable.assign(model.variables_by_name[name])
    run(
        monkeypatch,
        "--kind",
        "kaggle",
        "--export_path",
        tmp_path / "m",
        "--ckpt_path",
        save_weights(tmp_path / "w.h5", bare),
    )
    images, golden, call = (
        np.load(GOLDEN / "seed1/images.npz"),
        np.load(GOLDEN / "seed1/kaggle_global.npz"),
        signature(tmp_path / "m"),
    )
    for image in "ab":
        found = call(input_image=tf.constant(images[image]))["global_descriptor"]
        assert np.abs(found - golden[f"{image}/kaggle_sum_normalized"]).max() < 1e-5


# ---- checkpoints -----------------------------------------------------------------------------------------------------


FLAGS = {
    "backbone": "tiny",
    "use_autoencoder": True,
    "autoencoder_dimensions": 24.0,
    "delg_global_features": True,
    "delg_gem_power": 3.0,
    "delg_embedding_layer_dim": None,
    "block3_strides": True,
}


def write_log(folder, steps=(1,), flags=FLAGS, without=(), **network):
    """A log folder as the training leaves it: a checkpoint for each step, of networks that differ."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({**flags, "batch_size": 4}))
    model = exports.tiny_model(**network)
    add_classifiers(model, 5)
    variables = {name: variable for name, variable in model.variables_by_name.items() if name not in without}
    step, momenta = tf.Variable(0, dtype=tf.int64), [tf.Variable(variable) for variable in variables.values()]
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(variables=variables, step=step, momenta=momenta), str(folder / "checkpoints"), max_to_keep=5
    )
    for number in steps:
        step.assign(number)
        model.variables_by_name["attn_conv2/bias"].assign([number / 4])
        manager.save(checkpoint_number=number)
    return folder, model


def strongest(folder):
    found = signature(folder)(
        input_image=tf.constant(random_images(64, 64)[0]),
        input_scales=tf.constant([1.0]),
        input_max_feature_num=tf.constant(1),
        input_abs_thres=tf.constant(0.0),
    )
    return float(found["scores"][0, 0])


def test_a_log_folder_gives_its_latest_checkpoint_and_its_weight_file_once_there_is_one(tmp_path, monkeypatch):
    log, model = write_log(tmp_path / "log", steps=(1, 9, 10))
    scores = {}
    for number in (9, 10, 20):
        model.variables_by_name["attn_conv2/bias"].assign([number / 4])
        settings = ExtractionSettings(scales=(1.0,), use_global=False)
        scores[number] = DelgNetwork(model).local_and_global(random_images(64, 64), settings)[0].scores[0]
    for path, number in (("", 10), ("checkpoints", 10), ("checkpoints/ckpt-9", 9)):
        run(
            monkeypatch,
            "--kind",
            "local",
            "--ckpt_path",
            log / path,
            "--export_path",
            tmp_path / f"m{path.replace('/', '')}",
        )
        assert strongest(tmp_path / f"m{path.replace('/', '')}") == pytest.approx(scores[number], rel=1e-5)
    bare = exports.tiny_model()
    bare.variables_by_name["attn_conv2/bias"].assign([5.0])
    save_weights(log / "weights.h5", bare)
    run(monkeypatch, "--kind", "local", "--ckpt_path", log, "--export_path", tmp_path / "last")
    assert strongest(tmp_path / "last") == pytest.approx(scores[20], rel=1e-5)


@pytest.mark.parametrize(
    "flags, network, without, words",
    [
        ({"use_autoencoder": False}, {}, (), ["holds the unknown variable 'autoenc_conv1/bias'"]),
        ({}, {"local_dim": None}, (), ["lacks variable 'autoenc_conv1/bias'"]),
        ({"delg_global_features": False}, {}, (), ["holds the unknown variable 'embedding_layer/bias'"]),
        ({}, {}, ("res4b_branch2a/kernel",), ["lacks variable 'res4b_branch2a/kernel'"]),
        (
            {"autoencoder_dimensions": 12.0},
            {},
            (),
            ["autoenc_conv1/kernel has shape (1, 1, 32, 24), the network needs (1, 1, 32, 12)"],
        ),
        ({"backbone": "huge"}, {}, (), ["settings.json: does not describe a network", "huge"]),
    ],
    ids=str,
)
def test_a_checkpoint_that_does_not_fill_the_network_exactly_is_refused(
    flags, network, without, words, tmp_path, monkeypatch, capsys
):
    log, _ = write_log(tmp_path / "log", flags={**FLAGS, **flags}, without=without, **network)
    error = error_of(main, ["--ckpt_path", log, "--export_path", tmp_path / "m"], monkeypatch, capsys)
    assert all(word in error for word in [*words, str(log)]), error
    assert files_below(tmp_path) == files_below_log(tmp_path)


def files_below_log(folder):
    return ["log", *(f"log/{name}" for name in files_below(folder / "log"))]


def test_damaged_checkpoints_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    log, _ = write_log(tmp_path / "log")
    index, data = log / "checkpoints/ckpt-1.index", log / "checkpoints/ckpt-1.data-00000-of-00001"
    arguments = ["--ckpt_path", log, "--export_path", tmp_path / "m"]
    for file in (index, data):
        whole = file.read_bytes()
        for kept in (None, 0, 100, len(whole) // 2):
            file.unlink()
            if kept is not None:
                file.write_bytes(whole[:kept])
            error = error_of(main, arguments, monkeypatch, capsys)
            assert "ckpt-1: a damaged checkpoint" in error, error
            file.write_bytes(whole)
    settings = (log / "settings.json").read_bytes()
    for damage, words in (
        (b"[1]", "no settings of the training"),
        (b"{", "not valid JSON"),
        (b'{"backbone": "tiny"}', "does not describe"),
    ):
        (log / "settings.json").write_bytes(damage)
        assert words in error_of(main, arguments, monkeypatch, capsys)
    (log / "settings.json").unlink()
    assert "no settings of the training" in error_of(main, arguments, monkeypatch, capsys)
    (log / "settings.json").write_bytes(settings)
    assert files_below(tmp_path) == files_below_log(tmp_path)


# ---- wrong input and folders -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights") / "delg.h5", exports.tiny_model())


def test_flags_that_contradict_the_file_are_refused_and_both_are_named(weights, tmp_path, monkeypatch, capsys):
    agreeing = [
        "--use_autoencoder",
        "--autoencoder_dimensions",
        "24",
        "--local_feature_map_channels",
        "32",
        "--delg_global_features",
        "--delg_gem_power",
        "3.0",
        "--delg_embedding_layer_dim",
        "48",
    ]
    for flag, words in (
        (["--no-use_autoencoder"], "has use_autoencoder True, --use_autoencoder says False"),
        (["--autoencoder_dimensions", "128"], "has autoencoder_dimensions 24, --autoencoder_dimensions says 128"),
        (["--local_feature_map_channels", "1024"], "has local_feature_map_channels 32, "),
        (["--no-delg_global_features"], "has delg_global_features True, "),
        (["--delg_gem_power", "2.5"], "has delg_gem_power 3, --delg_gem_power says 2.5"),
        (["--delg_embedding_layer_dim", "2048"], "has delg_embedding_layer_dim 48, "),
    ):
        error = error_of(
            main, ["--ckpt_path", weights, "--export_path", tmp_path / "m", *agreeing, *flag], monkeypatch, capsys
        )
        assert str(weights) in error and words in error, error
    assert files_below(tmp_path) == []
    run(monkeypatch, "--ckpt_path", weights, "--export_path", tmp_path / "m", *agreeing)
    assert "m/saved_model.pb" in files_below(tmp_path)


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
    weights, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    arguments = ["--ckpt_path", weights, "--export_path", folder, "--kind", "local"]
    assert "m: exists; choose another" in error_of(main, arguments, monkeypatch, capsys)
    assert "m: not the folder of a SavedModel" in error_of(main, [*arguments, "--overwrite"], monkeypatch, capsys)
    assert files_below(tmp_path) == ["m", "m/thesis.txt"]
    (folder / "saved_model.pb").write_bytes(b"older")
    assert "m: exists; choose another" in error_of(main, arguments, monkeypatch, capsys)

    def fail(folder, *_):
        folder.mkdir()
        raise OSError(28, "No space left on device", str(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "save_serving", fail)
        assert "No space left" in error_of(main, [*arguments, "--overwrite"], monkeypatch, capsys)
    assert files_below(tmp_path) == ["m", "m/saved_model.pb", "m/thesis.txt"]
    run(monkeypatch, *arguments, "--overwrite")
    assert (
        strongest(folder) > 0
        and [path.name for path in tmp_path.iterdir()] == ["m"]
        and not (folder / "thesis.txt").exists()
    )


def test_exporting_says_one_line(weights, tmp_path, monkeypatch, capfd):
    run(monkeypatch, "--ckpt_path", weights, "--export_path", tmp_path / "new/m", "--kind", "global")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == (f"wrote {tmp_path / 'new/m'}\n", "")
