"""rrt/evaluation/run.py: what is measured, written and said of a run, for every list, store and shortlist."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from reranking import NETWORK, make_measured_world, typed

from rrt.command_line.settings import described
from rrt.configs import UNUSED
from rrt.datasets.sets import TEST_LISTS, open_test_set
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError
from rrt.evaluation.metrics import average_precision
from rrt.evaluation.rankings import load_rankings
from rrt.evaluation.run import cropping_of, evaluate_run, protocol_text
from rrt.evaluation.settings import EvaluationSettings
from rrt.evaluation.trec import measure_run
from rrt.files.atomic import sha256_of_file
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.formats.revisited import load_revisited_set
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.search.table import load_neighbors, save_neighbors
from rrt.store.memory import MemoryStore


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_measured_world(tmp_path_factory.mktemp("evaluation"))


def evaluate(root, temp_dir, dataset=None, **settings):
    dataset = {"desc_name": "toy", "test_data_dir": str(root / "test"), "test_gnd_file": "gnd_toy.pkl"} | (
        dataset or {}
    )
    settings = {"temp_dir": temp_dir, "cpu": True, "resume": root / "published.pt"} | settings
    return evaluate_run(typed(EvaluationSettings, dataset, **settings))


SETTINGS = [
    {},
    {"distractors": True},
    {"dataset": {"test_gnd_file": "gnd_classic.json"}, "distractors": True},
    {"lambda": 0.5, "temperature": 0.3, "distractors": True},
    {"num_rerank": 1},
    {"num_rerank": 10**6, "distractors": True},
    {"resume": None, "distractors": True},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_runs_read_back_measure_what_the_evaluation_measured(root, tmp_path, settings):
    if "distractors" in settings:
        settings = settings | {"distractors": root / "distractors.h5"}
    report = evaluate(root, tmp_path, trec=True, **settings)
    gnd_file = settings.get("dataset", {}).get("test_gnd_file", "gnd_toy.pkl")
    images = load_revisited_set(*(root / "test" / name for name in (*TEST_LISTS, gnd_file)))
    assert list(report.results) == ["global"] + ["RRT"] * ("resume" not in settings)
    for method, results in report.results.items():
        for protocol, result in results.items():
            tag, measured, missing = measure_run(
                tmp_path / f"trec/{method}_{protocol}.run", images, "distractors" in settings
            )
            assert (tag, missing) == (f"{method}_{protocol}", 0)
            for name in ("aps", "ps", "rs"):
                np.testing.assert_array_equal(getattr(measured[protocol], name), getattr(result, name))
            assert tmp_path / f"trec/{protocol}.qrels" in report.trec
    if "resume" not in settings:
        with open(tmp_path / "queries.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4 and len(rows[0]) == 1 + 2 * len(results)


def naive_aps(run, qrels):
    """{query: average precision} by a reader that knows of no junk: sort by score in single precision, look names
    up."""
    right, found = {}, {}
    for line in qrels.read_text().splitlines():
        query, _, name, _ = line.split()
        right.setdefault(query, set()).add(name)
    for line in run.read_text().splitlines():
        query, _, name, _, score, _ = line.split()
        found.setdefault(query, []).append((-np.float32(score), name))
    places = {
        query: [place for place, (_, name) in enumerate(sorted(found[query])) if name in right[query]]
        for query in right
    }
    return {query: average_precision(places[query], len(right[query])) for query in right}


def test_another_reader_needs_no_junk_rule(root, tmp_path):
    report = evaluate(root, tmp_path, trec=True)
    queries = load_ground_truth(root / "test/gnd_toy.pkl").qimlist
    for method, results in report.results.items():
        for protocol, result in results.items():
            aps = naive_aps(tmp_path / f"trec/{method}_{protocol}.run", tmp_path / f"trec/{protocol}.qrels")
            assert [aps[query] for query in queries] == result.aps.tolist()


def test_the_protocol_is_saved_and_printed(root, tmp_path):
    path = save_checkpoint(
        tmp_path / "ours.pt",
        RRT(**NETWORK),
        settings={
            "model": RRT(**NETWORK).settings,
            "scale_binning": "exact",
            "selection": {"select_on": "test", "epoch": 3, "score": 1.0},
        },
    )
    distractors = root / "distractors.h5"
    report = evaluate(root, tmp_path, resume=path, num_rerank=7, distractors=distractors)
    protocol = json.loads((tmp_path / "results.json").read_text())["protocol"]
    neighbors = root / "test/nn_inds_toy.pkl"
    assert (
        protocol
        | {
            "queries": 4,
            "gallery": 32,
            "num_rerank": 7,
            "precision": "float32",
            "scale_binning": "exact",
            "lambda": 0.0,
            "distractors": f"{distractors} (40 images)",
            "neighbors": str(neighbors),
            "neighbors_sha256": sha256_of_file(neighbors),
            "checkpoint": str(path),
            "checkpoint_sha256": sha256_of_file(path),
            "whitening": None,
            "selection_rule": "the epoch of the best Medium + Hard mAP on the TEST SET, as published",
            "cropping": "unknown: the store does not say",
        }
        == protocol
    )
    assert protocol["junk"].startswith(
        "easy: junk, hard; medium: junk; hard: junk, easy - behind the gallery before reranking"
    )
    lines = protocol_text(report.numbers).splitlines()
    assert (
        "num_rerank: 7" in lines and "queries: 4" in lines and not any(line.startswith("whitening") for line in lines)
    )
    published = evaluate(root, tmp_path).numbers["protocol"]
    assert published["selection_rule"] == published["selected"] == "unknown: the checkpoint does not say"


@pytest.mark.parametrize(
    "config, size, said",
    [
        ({}, (640, 480), "unknown: the store does not say"),
        ({"crop_queries": False}, (640, 480), "queries taken whole"),
        ({"crop_queries": True}, (640, 480), "queries cropped to their boxes"),
        ({"crop_queries": True}, (700, 480), "unknown: the store was made with crop_queries, but"),
    ],
)
def test_cropping_is_what_the_store_shows(config, size, said):
    store = MemoryStore(np.eye(2), [np.empty((0, 4))] * 2, local_dim=4)
    store.config, store.image_size = config, np.array([[1, 1], size])
    queries = {"query_store": None, "query_index": np.array([1])}
    test = SimpleNamespace(store=store, gnd=[{"bbx": [0, 0, 639.4, 479.0]}], **queries)
    assert cropping_of(test).startswith(said)


def test_time_and_memory_are_given(root, tmp_path):
    numbers = evaluate(root, tmp_path, distractors=root / "distractors.h5").numbers
    assert numbers["ms_per_query"] > 0 and numbers["pairs_per_second"] > 0 and numbers["distractor_seconds"] > 0
    assert 50 < numbers["peak_memory_mb"] < 100_000 and "peak_device_memory_mb" not in numbers


def test_a_shortlist_longer_than_the_gallery_is_the_gallery(root, tmp_path):
    reports = [evaluate(root, tmp_path, num_rerank=number) for number in (32, 10**9)]
    assert reports[0].numbers["RRT"] == reports[1].numbers["RRT"]
    assert reports[1].numbers["protocol"]["num_rerank"] == 32


def test_queries_without_positives_and_other_lists_are_measured(root, tmp_path):
    """A list of three queries under other names of files, one of them without anything right."""
    shutil.copytree(root / "test", tmp_path / "test")
    queries = read_image_list(root / "test/test_query.txt")
    write_image_list(tmp_path / "test/q.txt", queries.names[:3], queries.labels[:3], queries.sizes[:3])
    truth = load_ground_truth(root / "test/gnd_toy.pkl")
    gnd = [truth.gnd[0], truth.gnd[1] | {"easy": [], "hard": []}, truth.gnd[2]]
    save_ground_truth(tmp_path / "test/gnd.json", truth.imlist, truth.qimlist[:3], gnd)
    table = load_neighbors(root / "test/nn_inds_toy.pkl")
    save_neighbors(tmp_path / "test/nn_inds_toy.pkl", table[:3])
    dataset = {
        "test_data_dir": str(tmp_path / "test"),
        "test_txt": ["q.txt", "test_gallery.txt"],
        "test_gnd_file": "gnd.json",
    }
    for distractors in (None, root / "distractors.h5"):
        report = evaluate(root, tmp_path / "out", dataset, distractors=distractors, trec=True)
        with open(tmp_path / "out/queries.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows[1]["RRT_medium_ap"] == "" and float(rows[0]["RRT_medium_ap"]) > 0
        assert report.numbers["RRT"]["M_map"] > 0


def test_as_many_descriptors_are_read_as_the_checkpoint_was_trained_with_unless_a_number_is_given(root, tmp_path):
    network = RRT(**NETWORK)
    recorded = {"model": network.settings, "max_sequence_len": 3}
    settings = {"resume": save_checkpoint(tmp_path / "few.pt", network, settings=recorded), "baselines": True}

    def found(**dataset):
        numbers = evaluate(root, tmp_path / "out", dataset, **settings).numbers
        return numbers["protocol"]["max_local"], [name for name in numbers if "local=" in name], numbers["RRT"]

    few, baselines, measured = found()
    assert few == 3 and baselines and all("local=3" in name for name in baselines)
    assert found(max_sequence_len=3) == (few, baselines, measured)
    assert found(max_sequence_len=9)[0] == 9 and found(max_sequence_len="all")[0] is None
    assert evaluate(root, tmp_path / "out").numbers["protocol"]["max_local"] == 500  # a published file says nothing


@pytest.mark.parametrize(
    "dataset, settings, named",
    [
        ({}, {"num_rerank": 0}, "num_rerank=0: expected an integer of at least 1"),
        ({}, {"num_rerank": 2.5}, "num_rerank=2.5"),
        ({}, {"scale_binning": "wrong"}, "scale_binning='wrong'"),
        ({}, {"distractors": "missing.h5"}, "missing.h5"),
        ({}, {"distractors": 5}, "distractors=5: expected the path of a file"),
        ({}, {"resume": 5}, "resume=5: expected the path of a file"),
        ({}, {"reranker": "aqe"}, "reranker=aqe: resume is the checkpoint of rrt, which is not among them"),
        ({"max_sequence_len": 2.5}, {}, "max_sequence_len=2.5"),
        ({"max_sequence_len": -1}, {}, "max_sequence_len=-1: expected an integer of at least 0, 'all' or None$"),
        ({"recalls": [0]}, {}, r"dataset.recalls=\[0\]"),
        ({"recalls": 5}, {}, "dataset.recalls=5"),
        ({"test_txt": ["a.txt"]}, {}, "dataset.test_txt"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(root, tmp_path, dataset, settings, named):
    with pytest.raises(InputError, match=named):
        evaluate(root, tmp_path / "out", dataset, **settings)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_found_before_scoring(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("rrt.evaluation.run.measure_method", None)
    with pytest.raises(OSError, match="file"):
        evaluate(root, tmp_path / "file" / "out")


def test_what_an_evaluation_leaves_is_of_one_method(root, tmp_path, monkeypatch):
    evaluate(root, tmp_path, reranker="aqe", resume=None)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("rrt.evaluation.run.save_rankings", lambda *_: (tmp_path / "none/there").read_bytes())
    with pytest.raises(FileNotFoundError):
        evaluate(root, tmp_path, reranker="superglobal", resume=None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and len(before) == 3


def test_print_config_explains_every_setting():
    for told in (described(EvaluationSettings), described(DatasetSettings), *UNUSED.values()):
        assert all(meaning for _, meaning in told.values())


def test_unused_settings_of_the_published_program_are_accepted():
    dataset = {"test_batch_size": 3, "desc_name": "toy"}
    settings = typed(EvaluationSettings, dataset, {"dim_K": 7, "nhead": 2}, visdom_port=8097, seed=3)
    assert (settings.dataset.desc_name, settings.model.nhead) == ("toy", 2)
    assert settings == typed(EvaluationSettings, {"desc_name": "toy"}, {"nhead": 2})
    with pytest.raises(InputError, match="unknown setting 'visdom'"):
        typed(EvaluationSettings, {}, visdom=1)


def test_a_test_set_is_no_distractor(root, tmp_path):
    with pytest.raises(InputError, match="is in .*delg_toy.h5, too"):
        evaluate(root, tmp_path, distractors=root / "test/delg_toy.h5")


def test_distractors_keep_the_queries_figures_apart_from_their_own(root, tmp_path):
    """More distractors never raise a query's average precision before reranking."""
    plain, enlarged = (evaluate(root, tmp_path, distractors=d) for d in (None, root / "distractors.h5"))
    for protocol, result in enlarged.results["global"].items():
        assert (result.aps <= plain.results["global"][protocol].aps + 1e-12).all()
    assert open_test_set(root / "test", "toy", "gnd_toy.pkl").ranks.shape == (4, 32)


def test_baselines_stand_beside_the_reranker_on_its_candidates_and_descriptors(root, tmp_path):
    few = {"max_sequence_len": 5}
    report = evaluate(root, tmp_path / "fused", few, num_rerank=6, baselines=True, **{"lambda": 0.5})
    labels = ["maxsim[local=5,num=6]", "maxsim[local=5,num=6,weight=0.2,symmetric=True]", "geometric[local=5,num=6]"]
    labels.append("rrt[local=5,num=6,weight=0]")
    assert list(report.results) == ["global", "RRT", *labels]
    numbers = report.numbers
    assert numbers[labels[-1]]["M_map"] == evaluate(root, tmp_path / "a", few, num_rerank=6).numbers["RRT"]["M_map"]
    of = {"resume": None, "reranker": "maxsim", "maxsim": {"query_local": 5, "gallery_local": 5}}
    plain = evaluate(root, tmp_path / "b", few, num_rerank=6, **of).numbers["maxsim"]
    assert numbers[labels[0]]["M_map"] == plain["M_map"] and numbers[labels[0]]["H_map"] == plain["H_map"]
    assert list(numbers["gain_over"]) == ["global", *labels]
    for label, gain in numbers["gain_over"].items():
        assert gain["gain"] == pytest.approx(numbers["RRT"]["M_map"] - numbers[label]["M_map"], abs=0.011)
        assert gain["p"] is None or gain["p"] <= gain["p_holm"] <= 1
    assert [method.label for method in load_rankings(tmp_path / "fused").methods] == list(report.results)
    alone = evaluate(root, tmp_path / "c", few, baselines=True, resume=None)
    assert alone.reranker is None and list(alone.results) == ["global", *(x.replace(",num=6", "") for x in labels[:3])]
