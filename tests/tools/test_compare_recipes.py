"""tools/compare_recipes.py: recipes over seeds on a made-up world, in the test's own process."""

import importlib
import json
import threading

import numpy as np
import pytest
from reranking import NETWORK, make_dataset

from rrt.command_line.sacred import run_sacred
from rrt.commands import compare, compare_recipes
from rrt.datasets.split import split_in_folds
from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.search.neighbors import prepare_topk_gldv2
from rrt.training import recipes as module
from rrt.training.recipes import curve, figures, read_recipes, run, table

MODULES = {
    "experiment.py": "rrt.commands.experiment",
    "tools/tune_fusion.py": "rrt.commands.tune_fusion",
    "evaluate_revisited.py": "rrt.commands.evaluate_revisited",
}


@pytest.fixture
def recipes(tmp_path):
    dataset = make_dataset(tmp_path)
    data = {
        name: dataset[name] for name in ("desc_name", "train_data_dir", "test_data_dir", "test_gnd_file", "sampler")
    }
    data |= {"val_data_dir": str(tmp_path / "val"), "val_gnd_file": "gnd_toy.pkl", "batch_size": 12}
    shared = [f"dataset.{name}={value}" for name, value in data.items()] + [
        f"model.{n}={v}" for n, v in NETWORK.items()
    ]
    path = tmp_path / "recipes.txt"
    path.write_text(f"""# a comment
all: {" ".join(shared)} cpu=True min_positives=2 epochs=1 steps_per_epoch=4 log_every=2 dataset.num_workers=0
evaluation: cpu=True
plain:
planted: planted_steps=6 planted.min_local=2 planted.max_local=6  # the same with a curriculum
""")
    return path


def run_main(monkeypatch, *arguments):
    """The commands it was told to run, and what main() printed nothing of: runs happen in this process."""
    calls = []

    def run_here(command, *words, log, threads):
        calls.append((command, *words))
        run_sacred(importlib.import_module(MODULES[command]).ex, [command, *map(str, words)])

    monkeypatch.setattr(module, "run", run_here)
    monkeypatch.setattr("sys.argv", ["compare_recipes.py", *map(str, arguments)])
    compare_recipes.main()
    return calls


def test_recipes_are_trained_tabulated_and_drawn_and_not_done_twice(recipes, tmp_path, monkeypatch, capsys):
    arguments = (recipes, "--out", tmp_path / "out", "--seeds", 1)
    calls = run_main(monkeypatch, *arguments)
    assert [call[0] for call in calls] == ["experiment.py", "tools/tune_fusion.py"] * 2 and all(
        "seed=1" in call for call in calls[::2]
    )
    assert ["baselines=True" in call for call in calls[1::2]] == [True, False]
    found = json.loads((tmp_path / "out/recipes.json").read_text())
    assert {name: len(runs) for name, runs in found.items()} == {"plain": 1, "planted": 1}
    assert "test_alone" not in found["plain"][0] and 0 < found["plain"][0]["val"] <= 100
    assert (tmp_path / "out/recipes.png").read_bytes().startswith(b"\x89PNG")
    calls = run_main(monkeypatch, *arguments, "--test", "planted")
    assert [call[0] for call in calls] == ["evaluate_revisited.py"] * 2
    last = capsys.readouterr().out
    assert (
        "| recipe | seeds | val | val_fused | val_global | val_maxsim | val_maxsim_blended | val_geometric "
        "| test_alone | test_fused | test_global | accuracy | pairs to 68 % | minutes |" in last
    )
    # Of the same candidates and descriptors, measured by the table of methods.
    settings = recipes.read_text().splitlines()[1].replace("all:", "").split()
    of_data = [word for word in settings if word.startswith(("dataset.", "model."))]
    of_data += [f"dataset.test_data_dir={tmp_path / 'val'}", f"temp_dir={tmp_path / 'methods'}", "cpu=True"]
    run_sacred(compare.ex, ["tools/compare.py", "with", *of_data, "methods=baselines"])
    rows = json.loads((tmp_path / "methods/comparison.json").read_text())["rows"]
    names = ("global", "maxsim", "maxsim_blended", "geometric")
    assert [row["map"]["medium"] for row in rows] == [found["planted"][0][f"val_{name}"] for name in names]
    seen, accuracy, planted = curve(tmp_path / "out/planted-1")
    assert seen.tolist() == [16, 32, 48, 64, 80] and planted == 48
    assert ((accuracy >= 0) & (accuracy <= 1)).all()


def test_runs_side_by_side_share_the_cores_and_stand_in_the_same_order(recipes, tmp_path, monkeypatch):
    begun, together = [], threading.Barrier(2)

    def train(recipe, seed, out, threads, fold):
        together.wait(timeout=60)  # passes when two run at a time
        begun.append((recipe.name, seed, threads))
        return out / f"{recipe.name}-{seed}"

    drawn = {}
    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "figures", lambda folder: {"minutes": 0.0, "accuracy": 0.0, "pairs_to_68": None})
    monkeypatch.setattr(module, "draw", lambda folders, path: drawn.update(folders))
    monkeypatch.setattr(module, "usable_cores", lambda: 6)
    run_main(monkeypatch, recipes, "--out", tmp_path, "--seeds", 0, 1, "--jobs", 2)
    assert sorted(begun) == [("plain", 0, 3), ("plain", 1, 3), ("planted", 0, 3), ("planted", 1, 3)]
    assert {name: [folder.name for folder in runs] for name, runs in drawn.items()} == {
        "plain": ["plain-0", "plain-1"],
        "planted": ["planted-0", "planted-1"],
    }


def test_folds_are_trained_apart_and_averaged(recipes, tmp_path, monkeypatch):
    split_in_folds(tmp_path / "train/train.txt", tmp_path / "t", tmp_path / "v", 2, "fold", queries=2, link_stores=True)
    for fold in range(2):
        prepare_topk_gldv2(tmp_path / f"t_{fold}", "toy")
        prepare_topk_revisited(tmp_path / f"v_{fold}", "toy", "gnd_fold.pkl")
    distil = "distil.steps=2 distil.candidates=2 distil.views=0 distil.itself=0.0 distil.pool=4"
    folders = [f"dataset.train_data_dir={tmp_path}/t_{{fold}}", f"dataset.val_data_dir={tmp_path}/v_{{fold}}"]
    text = recipes.read_text().replace("evaluation:", f"training: {distil}\nevaluation:")
    recipes.write_text(
        text.replace("cpu=True min", f"{' '.join(folders)} dataset.val_gnd_file=gnd_fold.pkl cpu=True min")
    )
    arguments = (recipes, "--out", tmp_path / "out", "--seeds", 0, "--only", "planted")
    calls = run_main(monkeypatch, *arguments, "--folds", 2)
    for fold, call in enumerate(calls[::2]):
        assert f"dataset.train_data_dir={tmp_path}/t_{fold}" in call
        assert f"temp_dir={tmp_path}/out/planted-0-fold{fold}" in call
        assert "baselines=True" in calls[2 * fold + 1]  # each fold has a validation set of its own
    (found,) = json.loads((tmp_path / "out/recipes.json").read_text())["planted"]
    parts = [figures(tmp_path / f"out/planted-0-fold{fold}") for fold in range(2)]
    assert found["val"] == pytest.approx(np.mean([part["val"] for part in parts]), abs=0.01)
    # 2 steps of 4 lists of 2, 6 of 4 triplets of 2 pairs, 4 with labels: a point every second step.
    seen, _, unlabelled = curve(tmp_path / "out/planted-0-fold1")
    assert seen.tolist() == [16, 32, 48, 64, 80, 96] and unlabelled == 64
    for wrong, words in (
        ((), "have a place for a fold.*give --folds"),
        (("--folds", 2, "--test", "planted"), "not both"),
    ):
        with pytest.raises(InputError, match=words):
            run_main(monkeypatch, *arguments, *wrong)


def test_another_recipe_of_the_same_name_is_refused(recipes, tmp_path, monkeypatch):
    arguments = (recipes, "--out", tmp_path / "out", "--seeds", 0, "--only", "plain")
    with monkeypatch.context() as patched:
        patched.setitem(MODULES, "experiment.py", "absent")  # it is begun
        with pytest.raises(ModuleNotFoundError):
            run_main(patched, *arguments)
    recipes.write_text(recipes.read_text().replace("plain:", "plain: lr=1e-3"))
    with pytest.raises(InputError, match="trained by another recipe of this name"):
        run_main(monkeypatch, *arguments)


def test_the_table_has_the_mean_and_the_range_over_seeds():
    same = {"val_fused": 60.0, "val_global": 40.0, "accuracy": 70.0}
    runs = [
        same | {"val": 50.0, "pairs_to_68": 480, "minutes": 1.0},
        same | {"val": 52.0, "pairs_to_68": 240, "minutes": 2.0},
    ]
    row = (
        "| x | 2 | 51.00 (50.00–52.00) | 60.00 (60.00–60.00) | 40.00 (40.00–40.00) | 70.00 (70.00–70.00) | 240–480 "
        "| 1.5 |"
    )
    assert table({"x": runs}).splitlines()[2] == row
    assert "| 1 of 2 seeds |" in table({"x": [runs[0], runs[1] | {"pairs_to_68": None}]})


def test_figures_are_of_the_checkpoint_whose_fusion_was_tuned(tmp_path, monkeypatch):
    (tmp_path / "history.json").write_text(json.dumps([{"val_M_map": 31.0, "seconds": 60}, {"seconds": 60}]))
    (tmp_path / "fusion.json").write_text(json.dumps({"M_map": 33.0, "global_M_map": 29.0, "alone_M_map": 30.0}))
    # The first two points are of planted pairs.
    found = np.array([100, 200, 300, 400, 500]), np.array([0.5, 0.9, 0.6, 0.7, 0.65]), 200
    monkeypatch.setattr(module, "curve", lambda folder: found)
    expected = {
        "val": 30.0,
        "val_fused": 33.0,
        "val_global": 29.0,
        "accuracy": 65.0,
        "pairs_to_68": 400,
        "minutes": 2.0,
    }
    assert figures(tmp_path) == expected


def test_a_recipe_may_take_the_settings_of_one_above(tmp_path):
    (tmp_path / "recipes.txt").write_text("all: lr=1\ntraining: z=0\na: x=1\nb: @a y=2\nc: @b @a\n")
    assert [recipe.settings for recipe in read_recipes(tmp_path / "recipes.txt")] == [
        ("lr=1", "z=0", "x=1"),
        ("lr=1", "z=0", "x=1", "y=2"),
        ("lr=1", "z=0", "x=1", "y=2", "x=1"),
    ]
    assert {recipe.evaluation for recipe in read_recipes(tmp_path / "recipes.txt")} == {("model.RRT",)}
    for text in ("a: @b\nb: x=1", "a: @a"):
        (tmp_path / "recipes.txt").write_text(text)
        with pytest.raises(InputError, match="recipes.txt:1: @[ab]: no recipe of that name above"):
            read_recipes(tmp_path / "recipes.txt")


@pytest.mark.parametrize(
    "text, named",
    [("", "no recipe"), ("a b: x=1", "recipes.txt:1"), ("a: x=1\na: x=2", "recipes.txt:2"), ("x=1", "recipes.txt:1")],
)
def test_a_file_that_is_no_table_of_recipes_is_named(tmp_path, text, named):
    (tmp_path / "recipes.txt").write_text(text)
    with pytest.raises(InputError, match=named):
        read_recipes(tmp_path / "recipes.txt")


def test_a_failed_run_is_one_line_with_its_own_error(tmp_path):
    with pytest.raises(InputError, match=r"x.log: tools/check_store.py ended with status 1: absent.h5: no such "):
        run("tools/check_store.py", "absent.h5", log=tmp_path / "x.log")
