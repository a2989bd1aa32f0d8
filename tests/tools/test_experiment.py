"""experiment.py, evaluate_revisited.py and tools/tune_fusion.py as a user runs them."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import records_in
from commands import assert_one_line_error, error_of, files_below, run_tool
from reranking import GLOBAL_DIM, NETWORK, make_test_world, make_world, typed

from rrt.command_line.sacred import run_sacred
from rrt.command_line.settings import described
from rrt.commands import evaluate_revisited, experiment, tune_fusion
from rrt.configs import dataset_configs
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.files.atomic import sha256_of_file
from rrt.formats.ground_truth import GRADES, load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.search.table import load_neighbors, origin_path, save_neighbors
from rrt.search.whitening import fit_pca_whitening
from rrt.store.store import Store
from rrt.store.writer import write_store

MODEL = ["model.RRT", *(f"model.{name}={value}" for name, value in NETWORK.items())]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for part in ("train", "val", "test"):
        (root / part).mkdir()
    make_world(root / "train")
    make_test_world(root / "val", landmarks=3, seed=1)
    make_test_world(root / "test", landmarks=4, seed=2)
    save_checkpoint(root / "published.pt", make_network())
    return root


def make_network():
    torch.manual_seed(0)
    return RRT(**NETWORK)


def dataset_settings(root):
    parts = {f"dataset.{part}_data_dir": root / part for part in ("train", "val", "test")}
    names = {"dataset.desc_name": "toy", "dataset.test_gnd_file": "gnd_toy.pkl", "dataset.val_gnd_file": "gnd_toy.pkl"}
    return [f"{name}={value}" for name, value in (parts | names | {"dataset.sampler": "triplet"}).items()]


@pytest.fixture(scope="module")
def trained(world):
    """A run of experiment.py: the finished process and its folder."""
    folder = world / "logs" / "run"
    settings = [
        "cpu=True",
        "epochs=2",
        "steps_per_epoch=2",
        "min_positives=2",
        "planted_steps=1",
        "planted.min_local=2",
    ]
    arguments = ["-F", folder, "with", f"temp_dir={folder}", *dataset_settings(world), *MODEL, *settings]
    return run_tool("experiment.py", *arguments), folder


def test_training_writes_its_checkpoints_and_a_record_with_scalars(trained):
    finished, folder = trained
    assert finished.returncode == 0, finished.stderr
    assert {"best.pt", "last.pt", "history.json", "1/run.json", "1/config.json", "1/metrics.json"} <= set(
        files_below(folder)
    )
    assert "selected on the validation landmarks" in finished.stdout
    record = json.loads((folder / "1" / "run.json").read_text())
    assert record["status"] == "COMPLETED" and record["result"]["selected_on"] == "val"
    metrics = json.loads((folder / "1" / "metrics.json").read_text())
    assert metrics["epoch.val_M_map"]["steps"] == [1, 3, 5]


def test_evaluation_of_the_trained_checkpoint_gives_table_files_and_published_keys(world, trained):
    _, folder = trained
    arguments = [
        "-F",
        folder,
        "with",
        f"temp_dir={folder}",
        *dataset_settings(world),
        "model.RRT",
        f"resume={folder / 'best.pt'}",
    ]
    finished = run_tool("evaluate_revisited.py", *arguments)
    assert finished.returncode == 0, finished.stderr
    rows = [line for line in finished.stdout.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["global"] * 3 + ["RRT"] * 3
    assert "ms a query" in finished.stdout
    numbers = json.loads((folder / "results.json").read_text())
    assert numbers["protocol"]["selected"]["select_on"] == "val" and len(numbers["protocol"]["checkpoint_sha256"]) == 64
    with open(folder / "queries.csv", newline="") as file:
        queries = list(csv.DictReader(file))
    medium = np.mean([float(row["RRT_medium_ap"]) for row in queries])
    assert len(queries) == 4 and round(100 * medium, 2) == numbers["RRT"]["M_map"]
    result = json.loads((folder / "2" / "run.json").read_text())["result"]
    assert {"M_map", "H_map", "M_mp", "H_mp"} <= result.keys()
    assert result["M_map"] == numbers["RRT"]["M_map"] and len(result["M_mp"]) == 3
    assert result["global"] == numbers["global"]
    assert json.loads((folder / "2" / "info.json").read_text())["results"] == numbers
    assert {"2/results.json", "2/queries.csv"} <= set(files_below(folder))
    printed = finished.stdout.splitlines()
    assert "selection_rule: the epoch of the best Medium mAP on held-out validation landmarks" in printed
    assert f"checkpoint_sha256: {sha256_of_file(folder / 'best.pt')}" in printed


def test_fusion_is_tuned_on_validation_and_used_from_its_file(world, trained):
    _, folder = trained
    common = [*dataset_settings(world), "model.RRT", f"resume={folder / 'best.pt'}"]
    finished = run_tool("tools/tune_fusion.py", "with", f"temp_dir={folder}", *common)
    assert finished.returncode == 0, finished.stderr
    chosen = json.loads((folder / "fusion.json").read_text())
    assert chosen["M_map"] >= chosen["global_M_map"] and 0 <= chosen["lambda"] <= 1
    assert chosen["validation"].endswith("val")
    finished = run_tool(
        "evaluate_revisited.py", "with", f"temp_dir={folder / 'fused'}", *common, f"fusion={folder / 'fusion.json'}"
    )
    assert finished.returncode == 0, finished.stderr
    protocol = json.loads((folder / "fused" / "results.json").read_text())["protocol"]
    assert (protocol["lambda"], protocol["temperature"]) == (chosen["lambda"], chosen["temperature"])


def dataset_of(root, **changes):
    parts = {f"{part}_data_dir": str(root / part) for part in ("train", "test")}
    return {"desc_name": "toy", "test_gnd_file": "gnd_toy.pkl", "sampler": "triplet"} | parts | changes


def evaluate(root, folder, model=None, **settings):
    return evaluate_run(typed(EvaluationSettings, dataset_of(root), model, temp_dir=folder, cpu=True, **settings))


def test_without_a_checkpoint_global_search_alone_is_measured(world, tmp_path):
    report = evaluate(world, tmp_path)
    assert list(report.results) == ["global"] and "RRT" not in report.numbers
    assert report.numbers["protocol"]["num_rerank"] == 0


def test_lambda_one_gives_the_figures_of_global_search(world, tmp_path):
    report = evaluate(world, tmp_path, resume=world / "published.pt", **{"lambda": 1.0})
    for protocol, result in report.results["global"].items():
        np.testing.assert_array_equal(result.aps, report.results["RRT"][protocol].aps)


def test_whitening_changes_the_similarities_of_the_fusion(world, tmp_path):
    path = fit_pca_whitening(Store(world / "train" / "delg_toy.h5").global_descriptors, 4).save(tmp_path / "w.npz")
    plain, whitened = (
        evaluate(world, tmp_path / "out", resume=world / "published.pt", whitening=whitening, **{"lambda": 1.0})
        for whitening in (None, path)
    )
    assert not np.array_equal(plain.results["RRT"]["medium"].aps, whitened.results["RRT"]["medium"].aps)


def test_an_architecture_the_checkpoint_records_needs_no_settings(world, tmp_path):
    path = save_checkpoint(tmp_path / "ours.pt", make_network(), settings={"model": make_network().settings})
    plain = evaluate(world, tmp_path / "a", resume=world / "published.pt").numbers["RRT"]
    assert evaluate(world, tmp_path / "b", model={}, resume=path).numbers["RRT"] == plain
    with pytest.raises(InputError, match="model.nhead=4, the settings say 2"):
        evaluate(world, tmp_path / "c", model={"nhead": 2}, resume=path)


def test_the_scale_binning_a_checkpoint_records_is_used(world, tmp_path):
    settings = {"model": make_network().settings, "scale_binning": "exact"}
    path = save_checkpoint(tmp_path / "ours.pt", make_network(), settings=settings)
    assert evaluate(world, tmp_path, resume=path).numbers["protocol"]["scale_binning"] == "exact"
    assert (
        evaluate(world, tmp_path, resume=path, scale_binning="published").numbers["protocol"]["scale_binning"]
        == "published"
    )
    assert evaluate(world, tmp_path, resume=world / "published.pt").numbers["protocol"]["scale_binning"] == "published"


def test_there_is_a_named_configuration_for_every_published_command():
    names = {
        f"{test}_{net}_{version}"
        for test in ("roxford", "rparis", "gldv2_roxford")
        for net in ("r50", "r101")
        for version in ("gldv1", "gldv2")
    }
    configs = dataset_configs()
    assert names <= configs.keys() and {"scenes", "landmarks"} <= configs.keys()
    assert all(entries.keys() <= described(DatasetSettings).keys() for entries in configs.values())
    assert configs["rparis_r101_gldv1"]["test_gnd_file"] == "gnd_rparis6k.pkl"
    assert configs["gldv2_roxford_r50_gldv2"]["sampler"] == "triplet"


# What a user can get wrong. Each breaks a copy of the world (or returns settings) and says what the one line must name.


def without_an_image(root, part, last=True):
    """The store of a part written again without its last image."""
    store = Store(root / part / "delg_toy.h5")
    rewrite(store, lambda record: None if record.name == store.names[-1] else record)
    return store.names[-1]


def rewrite(store, change):
    records = [record for record in map(change, records_in(store)) if record]
    store.close()
    write_store(store.path, records, "toy", {})


def spoil_store(root, part):
    """NaN in one local descriptor of a finished store, as a damaged disk would leave it."""
    import h5py

    with h5py.File(root / part / "delg_toy.h5", "r+") as file:
        file["local/descriptors"][3] = np.nan


def break_neighbors(root, part, table):
    save_neighbors(root / part / "nn_inds_toy.pkl", table(load_neighbors(root / part / "nn_inds_toy.pkl")))


def with_other_sizes(root, part):
    origin_path(root / part / "nn_inds_toy.pkl").unlink()  # a table from elsewhere
    rewrite(Store(root / part / "delg_toy.h5"), lambda record: replace(record, global_=np.ones(7)))


def other_checkpoint(root, **settings):
    return save_checkpoint(root / "other.pt", RRT(**NETWORK | settings))


def with_another_order(root, part):
    """The gallery (or training) list turned round, its ground truth with it: all counts are as they were."""
    folder = root / part
    if part == "train":
        return write_list_turned(folder / "train.txt")
    write_list_turned(folder / "test_gallery.txt")
    truth = load_ground_truth(folder / "gnd_toy.pkl")
    last = len(truth.imlist) - 1
    gnd = [entry | {grade: last - entry[grade] for grade in GRADES} for entry in truth.gnd]
    save_ground_truth(truth.path, truth.imlist[::-1], truth.qimlist, gnd)


def write_list_turned(path):
    images = read_image_list(path)
    write_image_list(path, images.names[::-1], images.labels[::-1], images.sizes[::-1])


def with_other_descriptors(root, part):
    turned = np.eye(GLOBAL_DIM)[::-1]
    rewrite(Store(root / part / "delg_toy.h5"), lambda record: replace(record, global_=record.global_ @ turned))


FAULTS = {
    "checkpoint of another architecture": lambda root, part: {"path": other_checkpoint(root, dim_feedforward=48)},
    "store of other descriptor sizes": lambda root, part: with_other_sizes(root, part),
    "store lacking a listed image": lambda root, part: without_an_image(root, part) and None,
    "neighbours of other counts": lambda root, part: break_neighbors(root, part, lambda table: table[:-1]),
    "neighbours of another gallery": with_another_order,
    "neighbours of other descriptors": with_other_descriptors,
    "neighbours listing an image twice": lambda root, part: break_neighbors(root, part, lambda t: t[:, [0, 1, 0, 2]]),
    "NaN descriptors": lambda root, part: spoil_store(root, part),
}
NAMED = {
    "checkpoint of another architecture": ["other.pt", "linear1.weight"],
    "store of other descriptor sizes": ["delg_toy.h5", "7 dimensions", f" {GLOBAL_DIM};"],
    "store lacking a listed image": ["delg_toy.h5", "no descriptors for 'jpg/landmark", "line "],
    "neighbours of other counts": ["nn_inds_toy.pkl", "rows of neighbours"],
    "neighbours of another gallery": ["nn_inds_toy.pkl", "other names, or another order", "prepare_topk"],
    "neighbours of other descriptors": ["nn_inds_toy.pkl", "other global descriptors", "delg_toy.h5", "prepare_topk"],
    "neighbours listing an image twice": ["nn_inds_toy.pkl", "row 0 lists gallery position", "twice", "prepare_topk"],
    "NaN descriptors": ["delg_toy.h5", "hold NaN or infinity", "extract"],
}


@pytest.fixture
def broken(world, tmp_path, request):
    """A copy of the world with one fault in the part a command reads: (root, extra settings)."""
    part, fault = request.param
    for name in ("train", "test"):
        shutil.copytree(world / name, tmp_path / name)
    found = FAULTS[fault](tmp_path, part) or {}
    return tmp_path, found.get("path"), NAMED[fault]


def assert_refused(command, named, settings, root, monkeypatch, capsys):
    """The command ends with one line that has every part of ``named``, and leaves nothing."""
    arguments = ["with", f"temp_dir={root / 'out'}", *dataset_settings(root), *MODEL, "cpu=True", *settings]
    line = error_of(lambda: run_sacred(command.ex), arguments, monkeypatch, capsys)
    assert all(part in line for part in named), line
    assert not (root / "out").exists()


@pytest.mark.parametrize("broken", [("train", fault) for fault in FAULTS], indirect=True, ids=list(FAULTS))
def test_training_names_what_is_wrong_before_it_writes_anything(broken, monkeypatch, capsys):
    root, checkpoint, named = broken
    settings = [] if checkpoint is None else [f"weights={checkpoint}"]
    settings += ["dataset.val_data_dir=None", "min_positives=2"]
    assert_refused(experiment, named, settings, root, monkeypatch, capsys)


@pytest.mark.parametrize("broken", [("test", fault) for fault in FAULTS], indirect=True, ids=list(FAULTS))
def test_evaluation_names_what_is_wrong_before_it_writes_anything(world, broken, monkeypatch, capsys):
    root, checkpoint, named = broken
    settings = [f"resume={checkpoint or world / 'published.pt'}"]
    assert_refused(evaluate_revisited, named, settings, root, monkeypatch, capsys)


@pytest.mark.parametrize("broken", [("test", fault) for fault in FAULTS], indirect=True, ids=list(FAULTS))
def test_tuning_names_what_is_wrong_before_it_writes_anything(world, broken, monkeypatch, capsys):
    root, checkpoint, named = broken
    settings = [f"resume={checkpoint or world / 'published.pt'}", f"dataset.val_data_dir={root / 'test'}"]
    assert_refused(tune_fusion, named, settings, root, monkeypatch, capsys)


@pytest.mark.parametrize(
    "settings, named",
    [
        (["num_rerank=0"], "num_rerank=0"),
        (["lambdas=[0.5, 2.0]"], "lambda=2.0"),
        (["temperatures=[0]"], "temperature=0"),
        (["lambdas=[]"], "at least one value"),
        (["dataset.max_sequence_len=-1"], "dataset.max_sequence_len=-1"),
    ],
)
def test_tuning_refuses_impossible_settings_before_it_scores(world, tmp_path, settings, named, monkeypatch, capsys):
    monkeypatch.setattr("rrt.network.scorer.Scorer.score", lambda *_: pytest.fail("scored"))
    settings = ["with", f"temp_dir={tmp_path / 'out'}", *dataset_settings(world), *MODEL, "cpu=True", *settings]
    settings.append(f"resume={world / 'published.pt'}")
    assert named in error_of(lambda: run_sacred(tune_fusion.ex), settings, monkeypatch, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_more_candidates_than_the_table_lists_are_refused(world, tmp_path, command, monkeypatch, capsys):
    shutil.copytree(world / "train", tmp_path / "train")
    shutil.copytree(world / "test", tmp_path / "test")
    break_neighbors(tmp_path, "test", lambda table: table[:, :9])
    if command == "train":
        settings = ["min_positives=2", "dataset.val_data_dir=None", "select_on=last", "watch_test=True"]
        assert_refused(experiment, ["lists 9 of 28", "num_rerank=100"], settings, tmp_path, monkeypatch, capsys)
    else:
        settings = [f"resume={world / 'published.pt'}", "num_rerank=10"]
        assert_refused(evaluate_revisited, ["lists 9 of 28", "num_rerank=9"], settings, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    "changes, settings, named",
    [
        ({"test_data_dir": None}, {}, "dataset.test_data_dir is not set"),
        ({"test_data_dir": "nowhere"}, {}, "nowhere/test_query.txt"),
        ({"test_gnd_file": "missing.pkl"}, {}, "missing.pkl"),
        ({"desc_name": "other"}, {}, "delg_other.h5"),
        ({}, {"resume": "missing.pt"}, "missing.pt: no such checkpoint"),
        ({}, {"fusion": "missing.json", "resume": "x.pt"}, "missing.json: no such file"),
        ({}, {"whitening": "missing.npz"}, "missing.npz"),
        ({}, {"lambda": 2.0}, "lambda=2.0"),
    ],
)
def test_evaluation_refuses_missing_files_and_impossible_settings(world, tmp_path, changes, settings, named):
    with pytest.raises(InputError, match=named):
        evaluate_run(typed(EvaluationSettings, dataset_of(world, **changes), temp_dir=tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_a_damaged_fusion_file_is_named(world, tmp_path):
    (tmp_path / "fusion.json").write_text('{"lambda": 0.5}')
    with pytest.raises(InputError, match="fusion.json: no lambda and temperature"):
        evaluate(world, tmp_path, fusion=tmp_path / "fusion.json")


def test_training_without_a_dataset_says_how_to_name_one(world):
    finished = run_tool("experiment.py", "with", "model.RRT", f"temp_dir={world / 'none'}")
    assert_one_line_error(finished, "dataset.scenes")


def test_a_misspelt_setting_is_answered_with_the_right_one(world):
    finished = run_tool("experiment.py", "with", "dataset.scenes", "model.RRT", "max_nrom=0.1")
    assert_one_line_error(finished, "max_nrom", "max_norm")
