"""tools/learn_projection.py and what tools/extract.py makes of its file, up to a reranked table, a report and a pair.

The backbone is a tiny DINOv2; no command on the way knows of it.
"""

import json

import numpy as np
import pytest
from commands import error_of, files_below, output_of, run_tool
from photo_folders import draw
from tiny_backbones import save_backbone

from rrt.commands import extract
from rrt.commands.learn_projection import main
from rrt.extraction.projections import load_projections
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list
from rrt.store.store import Store

SIZE = 84, 70
LANDMARKS, IMAGES = 6, 6
DESCRIPTION = ["--image_size", "84", "--layer", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images of landmarks, the lists of a training and a test set, ground truth, and a tiny DINOv2."""
    root = tmp_path_factory.mktemp("world")
    names, labels = [], []
    for landmark in range(LANDMARKS):
        for image in range(IMAGES):
            names.append(f"jpg/{landmark}_{image}.png")
            labels.append(landmark)
            draw(root / names[-1], seed=len(names), size=SIZE, scene=landmark)
    queries = [row for row in range(len(names)) if row % IMAGES == 0]
    gallery = [row for row in range(len(names)) if row % IMAGES]
    for file, rows in (("train", range(len(names))), ("test_query", queries), ("test_gallery", gallery)):
        write_image_list(
            root / f"{file}.txt", [names[row] for row in rows], [labels[row] for row in rows], [SIZE] * len(rows)
        )
    truth = [
        {"bbx": [7, 0, 76, 69], "easy": [i for i, row in enumerate(gallery) if labels[row] == labels[query]]}
        | {"hard": [], "junk": []}
        for query in queries
    ]
    stems = [[names[row][4:-4] for row in rows] for rows in (gallery, queries)]
    save_ground_truth(root / "gnd.pkl", *stems, truth)
    save_backbone(root, "dinov2")
    return root


@pytest.fixture(scope="module")
def learned(world):
    arguments = ["--list", world / "train.txt", "--output", world / "p.npz", "--dim", 16, "--global_dim", 12]
    return output_of(main, *common(world), *arguments, "--learn_attention")


def common(world):
    return ["--model", f"transformers:{world / 'dinov2'}", "--image_dir", world, *DESCRIPTION]


def done(*arguments):
    finished = run_tool(*arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_command_writes_the_file_it_names(world, learned):
    assert learned == f"wrote {world / 'p.npz'}: from 36 images, local descriptors 32 -> 16 dimensions\n"
    found = load_projections(world / "p.npz")
    assert found.global_ is not None and found.global_.axes.shape == (32, 12) and found.attention is not None


@pytest.mark.slow
def test_a_store_of_dinov2_goes_through_every_command(world, learned):
    """Neighbours, training, reranking, report and a pair."""
    stores = [world / "delg_dinov2.h5", world / "delg_test.h5"]
    on_top = ["--projection", world / "p.npz", "--attention", "learned"]
    described = [*common(world), *on_top, "--num_workers", 1]
    output_of(extract.main, *described, "--list", world / "train.txt", "--output", stores[0])
    cropped = ["--query_list", world / "test_query.txt", "--ground_truth", world / "gnd.pkl"]
    output_of(extract.main, *described, "--list", world / "test_gallery.txt", *cropped, "--output", stores[1])
    with Store(stores[1]) as store:
        assert (store.global_dim, store.local_dim, len(store.names)) == (12, 16, LANDMARKS * IMAGES)
        assert store.image_size[store.names.index("jpg/0_0.png")].tolist() == [69, 69]  # the box
        assert store.config["model"] == "transformers:dinov2" and store.config["attention"] == "learned"
    train, test, run = world / "train", world / "test", world / "run"
    for folder, store, lists in ((train, stores[0], ["train"]), (test, stores[1], ["test_query", "test_gallery"])):
        folder.mkdir()
        (folder / "delg_dinov2.h5").symlink_to(store)
        for name in lists:
            (folder / f"{name}.txt").symlink_to(world / f"{name}.txt")
    (test / "gnd.pkl").symlink_to(world / "gnd.pkl")
    feature = ["feature_name=dinov2", "use_aqe=False"]
    done("tools/prepare_topk_gldv2.py", "with", f"data_dir={train}", "feature_name=dinov2")
    done("tools/prepare_topk_revisited.py", "with", f"data_dir={test}", "gnd_name=gnd.pkl", *feature)
    dataset = [f"dataset.{part}_data_dir={folder}" for part, folder in (("train", train), ("test", test))]
    dataset += ["dataset.desc_name=dinov2", "dataset.test_gnd_file=gnd.pkl", "dataset.sampler=triplet"]
    network = ["num_global_features=12", "num_local_features=16", "dim_feedforward=32", "num_encoder_layers=2"]
    model = ["model.RRT", *(f"model.{value}" for value in network)]
    few = ["cpu=True", "epochs=1", "steps_per_epoch=2", "min_positives=2", "select_on=last"]
    done("experiment.py", "-F", run, "with", f"temp_dir={run}", *dataset, *model, *few)
    measured = world / "measured"
    done("evaluate_revisited.py", "with", f"temp_dir={measured}", *dataset, "model.RRT", f"resume={run / 'last.pt'}")
    results = json.loads((measured / "results.json").read_text())
    assert {"global", "RRT"} <= results.keys() and results["global"]["M_map"] > 100 / LANDMARKS
    report = world / "report"
    pair = ["--pairs", "0_0:0_1", "--num_workers", 1]
    done("tools/report.py", measured, "--image_dir", world, "--out", report, *pair)
    assert (report / "index.html").exists()
    files = ["--store", stores[1], "--image_dir", world, "--gnd", world / "gnd.pkl", "--output", world / "pair.png"]
    done("tools/show_pair.py", "0_0", "0_1", *files, "--resume", run / "last.pt", "--cpu")
    assert (world / "pair.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--dim", "33"], ["33 dimensions", "vary in 32"]),
        (["--dim", "0"], ["dim=0"]),
        (["--output", "p.pt"], ["p.pt", ".npz"]),
        (["--list", "absent.txt"], ["absent.txt"]),
        (["--model", "transformers:absent"], ["absent: no such folder"]),
        (["--model", "lite0", "--learn_attention"], ["--learn_attention is for transformers models"]),
        (["--model", "onnx:x.onnx", "--global_pool", "gem"], ["--global_pool is for --model transformers"]),
        (["--image_dir", "absent"], ["none of 36 images", "jpg/0_0.png", "no such file"]),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(world, monkeypatch, capsys, tmp_path, arguments, parts):
    monkeypatch.chdir(tmp_path)
    given = [*map(str, common(world)), "--list", str(world / "train.txt"), "--output", "q.npz", *arguments]
    if arguments[1] in ("lite0", "onnx:x.onnx"):
        given = [value for value in given if value not in ("--layer", "1")]
    message = error_of(main, given, monkeypatch, capsys)
    assert all(part in message for part in parts) and message.count("\n") <= 1
    assert files_below(tmp_path) == []


def test_a_projection_of_another_layer_or_model_ends_an_extraction_with_one_line(world, monkeypatch, capsys, tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, local_mean=np.zeros(7), local_axes=np.eye(7))
    arguments = ["--list", world / "train.txt", "--output", tmp_path / "s.h5", "--projection", path]
    message = error_of(extract.main, [*common(world), *arguments], monkeypatch, capsys)
    for part in (str(path), "local descriptors of 7 dimensions, the model gives 32", "learn it again"):
        assert part in message
    assert files_below(tmp_path) == ["p.npz"]
