"""The scripts that train the reranker: the commands they run, what they refuse, and one walk over a small data
folder."""

import json
import os
import shutil
import subprocess

import pytest
from commands import ROOT, commands_in, stub_python, warm_python
from reranking import NETWORK, make_test_world, make_world

from rrt.configs import dataset_configs
from rrt.datasets.configured import split_folders
from rrt.datasets.sets import neighbors_path, store_path
from rrt.formats.lists import read_image_list
from rrt.network.checkpoint import load_checkpoint

SCRIPTS = ROOT / "rrt_scripts"
LATE = "distil.teacher=checkpoint:rrt_gld_ckpts/late_lite0.safetensors"
MAX_NORM = {"r50_gldv1": 0.1, "r50_gldv2": 0.0, "r101_gldv1": 0.1, "r101_gldv2": 0.1}  # docs/protocol.md 4
SETS = {"oxford5k": "gnd_roxford5k.pkl", "paris6k": "gnd_rparis6k.pkl"}
OWN = ("DATA", "LOGS", "NPROC", "HELD_OUT", "WEIGHTS", "TRAINING", "WHITENING", "VIEWS")


def call(script, *arguments, **settings):
    environment = {name: value for name, value in os.environ.items() if name not in OWN} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *map(str, arguments)],
        env=environment | settings,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


@pytest.fixture
def run(tmp_path):
    """Runs a script with a Python that only prints what it was asked to do -> (status, commands as lists, stderr)."""
    stub = stub_python(tmp_path)

    def run(script, *arguments, **settings):
        own = {"RRT_PYTHON": str(stub), "DATA": str(tmp_path / "my data"), "LOGS": str(tmp_path / "my logs")}
        done = call(script, *arguments, **own | settings)
        return done.returncode, commands_in(done.stdout), done.stderr

    return run


@pytest.fixture
def files(tmp_path):
    """Lists, stores, held-out landmarks, neighbours and chosen checkpoints of all four kinds, empty."""
    data = tmp_path / "my data"
    for folder in ("gldv2", "gldv2_train", "gldv2_val", *SETS):
        (data / folder).mkdir(parents=True)
        for desc in MAX_NORM:
            store_path(data / folder, desc).touch()
            neighbors_path(data / folder, desc).touch()
    (data / "gldv2/train.txt").touch()
    (data / "gldv2_val/gnd_gldv2_val.pkl").touch()
    for desc in MAX_NORM:
        (tmp_path / f"my logs/train_{desc}").mkdir(parents=True)
    return data


def one_line(found):
    status, commands, error = found
    assert (status, commands) == (1, []) and error.startswith("error: ") and error.count("\n") == 1, found
    return error


def test_there_are_four_scripts_of_at_most_three_lines():
    assert {path.name for path in SCRIPTS.glob("train_r*.sh")} == {f"train_{desc}.sh" for desc in MAX_NORM}
    for desc in MAX_NORM:
        script = SCRIPTS / f"train_{desc}.sh"
        assert len(script.read_text().splitlines()) <= 3 and os.access(script, os.X_OK)


@pytest.mark.parametrize("desc", MAX_NORM)
def test_a_script_trains_with_the_published_settings_and_measures_the_chosen_epoch(run, files, tmp_path, desc):
    status, commands, error = run(f"train_{desc}.sh", "epochs=7", "cpu=True")
    assert (status, error) == (0, "")
    log = tmp_path / "my logs" / f"train_{desc}"
    training, *evaluations = commands
    watched = ",".join(str(files / folder / gnd) for folder, gnd in SETS.items())
    assert training[:5] == ["experiment.py", "-F", str(log), "with", f"temp_dir={log}"]
    assert set(training[5:]) == {
        f"dataset.gldv2_roxford_{desc}",
        "model.RRT",
        "resume=auto",
        f"dataset.train_data_dir={files / 'gldv2'}",
        f"dataset.test_data_dir={files / 'oxford5k'}",
        f"watch_test={watched}",
        f"max_norm={MAX_NORM[desc]}",
        "epochs=7",
        "cpu=True",
    }
    assert training[-2:] == ["epochs=7", "cpu=True"]  # the user's own are the last word
    for command, folder, name in zip(evaluations, SETS, ("roxf", "rpar"), strict=True):
        assert command[0] == "evaluate_revisited.py" and f"dataset.test_data_dir={files / folder}" in command
        assert command[-3:] == [f"resume={log}/best.pt", f"temp_dir={log}/{name}", "cpu=True"]


def test_folders_are_those_of_the_configurations(run, files):
    for desc in MAX_NORM:
        entries = dataset_configs()[f"gldv2_roxford_{desc}"]
        assert (entries["train_data_dir"], entries["test_data_dir"], entries["desc_name"]) == (
            "data/gldv2",
            "data/oxford5k",
            desc,
        )
        assert entries["val_data_dir"] == "auto"
    assert split_folders(files / "gldv2") == (files / "gldv2_train", files / "gldv2_val")


def test_what_is_missing_is_made_first_and_neighbours_among_the_training_part_alone(run, files):
    shutil.rmtree(files / "gldv2_val")
    (files / "gldv2_val").mkdir()  # the split is only printed here
    neighbors_path(files / "gldv2_train", "r101_gldv1").unlink()
    neighbors_path(files / "paris6k", "r101_gldv1").unlink()
    store_path(files / "gldv2_train", "r101_gldv1").unlink()
    _, commands, _ = run("train_r101_gldv1.sh", HELD_OUT="--landmarks 3")
    parts = [str(files / name) for name in ("gldv2_train", "gldv2_val")]
    assert commands[0] == [
        "tools/train_val_split.py",
        f"{files}/gldv2/train.txt",
        *parts,
        "--name",
        "gldv2_val",
        "--landmarks",
        "3",
    ]
    assert commands[1] == ["tools/prepare_topk_gldv2.py", "with", f"data_dir={parts[0]}", "feature_name=r101_gldv1"]
    for command, folder, gnd in zip(
        commands[2:], (parts[1], files / "paris6k"), ("gnd_gldv2_val.pkl", "gnd_rparis6k.pkl"), strict=False
    ):
        assert command == [
            "tools/prepare_topk_revisited.py",
            "with",
            f"data_dir={folder}",
            "feature_name=r101_gldv1",
            f"gnd_name={gnd}",
        ]
    assert commands[4][0] == "experiment.py"
    for part in ("gldv2_train", "gldv2_val"):
        assert store_path(files / part, "r101_gldv1").resolve() == store_path(files / "gldv2", "r101_gldv1").resolve()


def test_the_published_way_holds_nothing_out(run, files):
    shutil.rmtree(files / "gldv2_train")
    shutil.rmtree(files / "gldv2_val")
    neighbors_path(files / "gldv2", "r50_gldv2").unlink()
    status, commands, _ = run("train_r50_gldv2.sh", "select_on=test")
    assert status == 0 and commands[0] == [
        "tools/prepare_topk_gldv2.py",
        "with",
        f"data_dir={files}/gldv2",
        "feature_name=r50_gldv2",
    ]
    assert commands[1][0] == "experiment.py" and commands[1][-1] == "select_on=test"
    assert f"watch_test={files}/paris6k/gnd_rparis6k.pkl" in commands[1]
    store_path(files / "oxford5k", "r50_gldv2").unlink()
    error = one_line(run("train_r50_gldv2.sh", "select_on=test"))
    assert "oxford5k/delg_r50_gldv2.h5" in error and "extract_oxford_r50_gldv2.sh" in error


def test_test_sets_without_a_store_are_passed_over(run, files):
    for folder in SETS:
        store_path(files / folder, "r50_gldv1").unlink()
    status, commands, _ = run("train_r50_gldv1.sh")
    assert status == 0 and [command[0] for command in commands] == ["experiment.py"]
    assert "watch_test" not in str(commands)


def test_several_processes_are_started_by_torchrun(run, files):
    _, commands, _ = run("train_r50_gldv2.sh", NPROC="4")
    assert commands[0][:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "4", "experiment.py"]
    assert "NPROC=0: expected" in one_line(run("train_r50_gldv2.sh", NPROC="0"))
    assert "NPROC=all: expected" in one_line(run("train_r50_gldv2.sh", NPROC="all"))


def test_missing_inputs_are_one_line_with_the_command_that_makes_them(run, files):
    (files / "gldv2/train.txt").unlink()
    error = one_line(run("train_r50_gldv1.sh"))
    assert "gldv2/train.txt: no such list" in error and "tools/prepare_data.py gldv2_train" in error
    store_path(files / "gldv2", "r50_gldv1").unlink()
    error = one_line(run("train_r50_gldv1.sh"))
    script = "delg_extract/scripts/extract_gldv2_r50_gldv1.sh"
    assert "delg_r50_gldv1.h5: no such store" in error and script in error and (ROOT / script).exists()
    assert "tools/import_delg.py" in error


@pytest.mark.parametrize("arguments", [(), ("r18", "gldv1"), ("r50", "gldv3"), ("r50",)])
def test_wrong_names_are_one_line(run, arguments):
    one_line(run("train.sh", *arguments))


def test_help_tells_the_settings():
    for script, option, known in (
        ("train.sh", "--help", OWN[:4]),
        ("train_r101_gldv2.sh", "-h", OWN[:4]),
        ("train_landmarks.sh", "--help", ("DATA", "LOGS", *OWN[3:])),
        ("train_photographs.sh", "--help", ("DATA", "LOGS", "TRAINING", "VIEWS")),
    ):
        done = call(script, option)
        assert done.returncode == 0 and all(name in done.stdout for name in known) and "set -e" not in done.stdout


@pytest.fixture
def photographs(tmp_path):
    """A folder as train_landmarks.sh takes it; its images are empty files."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("train.txt", "test_query.txt", "test_gallery.txt", "gnd_landmarks.pkl"):
        (folder / name).touch()
    (tmp_path / "weights.h5").touch()
    for part in ("train", "val", "test"):
        (tmp_path / f"my data/landmarks_{part}").mkdir(parents=True)
    return folder


def test_landmarks_run_from_the_split_to_the_fused_measure(run, photographs, tmp_path):
    given = {"BACKBONE": "r50", "WEIGHTS": str(tmp_path / "weights.h5")}
    status, commands, error = run("train_landmarks.sh", photographs, "epochs=9", **given)
    assert (status, error) == (0, "")
    tools = [command[0] for command in commands]
    assert tools == [
        "tools/train_val_split.py",
        "tools/make_views.py",
        *["delg_extract/extract.py"] * 3,
        "tools/learn_whitening.py",
        "tools/prepare_topk_gldv2.py",
        *["tools/prepare_topk_revisited.py"] * 2,
        "experiment.py",
        "tools/tune_fusion.py",
        *["evaluate_revisited.py"] * 3,
    ]
    training = commands[tools.index("experiment.py")]
    recipe = [
        word
        for line in (SCRIPTS / "recipes" / "real_photos.txt").read_text().splitlines()
        for word in line.split("#")[0].split()
    ]
    views = f"{tmp_path}/my data/landmarks_train_views"
    taught = ["distil.teacher=0.6*maxsim+0.4*global", f"distil.view_lists={views}/train.txt"]
    assert training[-len(recipe) - 4 :] == ["resume=auto", *taught, *recipe, "epochs=9"]
    assert commands[1][-6:-4] == ["--out", views] and f"{views}/delg_r50.h5" in commands[3]
    assert f"dataset.val_data_dir={tmp_path}/my data/landmarks_val" in training
    assert str(tmp_path / "weights.h5") in commands[2]


def test_landmarks_are_described_by_the_shipped_model_unless_another_is_named(run, photographs, tmp_path):
    status, commands, error = run("train_landmarks.sh", photographs)
    assert (status, error) == (0, "")
    tools = [command[0] for command in commands]
    assert tools[1:6] == ["tools/make_views.py", *["tools/extract.py"] * 3, "tools/prepare_topk_gldv2.py"]
    assert f"{tmp_path}/my data/landmarks_train/delg_lite0.h5" in commands[2]
    for command in commands[tools.index("experiment.py") :]:
        assert {"dataset.desc_name=lite0", "model.num_global_features=512"} <= set(command)
        assert not [word for word in command if word.startswith("whitening=")]
    assert LATE in commands[tools.index("experiment.py")]
    _, commands, _ = run("train_landmarks.sh", photographs, WHITENING="--dim 9", VIEWS="")
    assert "distil.view_lists" not in str(commands)
    whitening = f"{tmp_path}/my data/landmarks_train/whitening_lite0.npz"
    assert commands[3][0] == "tools/learn_whitening.py" and f"whitening={whitening}" in commands[-1]
    given = {"WEIGHTS": str(tmp_path / "weights.h5")}
    assert "name its own by BACKBONE=" in one_line(run("train_landmarks.sh", photographs, **given))


def test_real_photos_go_through_train_landmarks(run, photographs, tmp_path):
    status, commands, error = run("real_photos.sh", photographs, BACKBONE="r50")
    # The stub trains nothing, so that the weight file it should have made is what is missing.
    assert status == 1 and "my logs/delg_r50/weights.h5: no such weight file" in error
    assert [command[0] for command in commands] == ["tools/train_val_split.py", *["delg_extract/train.py"] * 2]
    for name in ("delg_r50", "delg_r50_start"):
        (tmp_path / "my logs" / name).mkdir(parents=True)
        (tmp_path / "my logs" / name / "weights.h5").touch()
    status, commands, error = run("real_photos.sh", photographs, BACKBONE="r50")
    assert (status, error) == (0, "")
    assert str(tmp_path / "my logs/delg_r50/weights.h5") in commands[3]
    ends = [*["evaluate_revisited.py"] * 3, "tools/verify_pairs.py", "evaluate_revisited.py"]
    assert [command[0] for command in commands][-5:] == ends
    status, commands, error = run("real_photos.sh", photographs)
    assert (status, error) == (0, "") and [command[0] for command in commands][-5:] == ends
    assert "delg_extract" not in str([command[0] for command in commands])


def test_photographs_without_labels_are_seen_in_views_and_learned_from_a_teacher(run, tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    views = tmp_path / "my data/my_photos_views"
    views.mkdir(parents=True)
    (views / "train.txt").touch()  # make_views is only printed here
    status, commands, error = run("train_landmarks.sh", folder, "seed=3")
    assert (status, error) == (0, "")
    described = ["tools/extract.py", "tools/prepare_data.py"]
    tools = ["tools/prepare_data.py", *described, "tools/make_views.py", *described, "experiment.py"]
    assert [command[0] for command in commands] == tools
    listed = str(tmp_path / "my data/my_photos_photographs")
    assert commands[0][1:4] == ["photographs", str(folder), f"{listed}/all.txt"]
    assert commands[2][1:] == ["described", *(f"{listed}/{name}" for name in ("all.txt", "delg_lite0.h5", "train.txt"))]
    assert commands[3][1:5] == ["--train_txt", f"{listed}/train.txt", "--image_dir", str(folder)]
    training = commands[-1]
    assert f"temp_dir={tmp_path}/my logs/rrt_my_photos" in training and training[-1] == "seed=3"
    assert {"epochs=0", "dataset.val_data_dir=None"} <= set(training)
    assert {LATE, f"distil.view_lists={tmp_path}/my data/my_photos_views/train.txt"} <= set(training)
    # A list of paths, given as it is or lying in the folder.
    (folder / "train.txt").write_text("a.jpg\n")
    for given in (folder, folder / "train.txt"):
        _, commands, _ = run("train_landmarks.sh", given, VIEWS="")
        assert [command[0] for command in commands] == ["tools/prepare_data.py", *described, "experiment.py"]
        assert commands[0][2] == str(folder / "train.txt") and commands[1][3:5] == ["--image_dir", str(folder)]
        assert "distil.view_lists" not in str(commands)
    assert "nowhere: no such folder or list" in one_line(run("train_photographs.sh", tmp_path / "nowhere"))


def test_landmarks_that_lack_something_are_one_line(run, photographs, tmp_path):
    assert "no such folder" in one_line(run("train_landmarks.sh", tmp_path / "nowhere"))
    assert "landmarks_train/delg_r50.h5: no such store; give a DELG weight file" in one_line(
        run("train_landmarks.sh", photographs, BACKBONE="r50")
    )
    weights = {"BACKBONE": "r50", "WEIGHTS": str(tmp_path / "absent.h5")}
    assert "absent.h5: no such weight file" in one_line(run("train_landmarks.sh", photographs, **weights))
    (photographs / "gnd_landmarks.pkl").unlink()
    weights = {"BACKBONE": "r50", "WEIGHTS": str(tmp_path / "weights.h5")}
    assert "gnd_landmarks.pkl: no such file" in one_line(run("train_landmarks.sh", photographs, **weights))


TRAINING = [
    "cpu=True",
    "epochs=2",
    "steps_per_epoch=2",
    "min_positives=2",
    *(f"model.{name}={value}" for name, value in NETWORK.items()),
]


@pytest.mark.slow
def test_small_data_folders_are_trained_on_and_measured_and_a_second_call_goes_on(tmp_path):
    data = tmp_path / "data"
    for folder in ("gldv2", "oxford5k", "landmarks_train", "landmarks_test"):
        (data / folder).mkdir(parents=True)
    make_world(data / "gldv2", desc_name="r50_gldv2")
    make_test_world(data / "oxford5k", landmarks=3, seed=1, desc_name="r50_gldv2")
    (data / "oxford5k/gnd_toy.pkl").rename(data / "oxford5k/gnd_roxford5k.pkl")
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    make_world(data / "landmarks_train", desc_name="r50", seed=3)
    make_test_world(data / "landmarks_test", landmarks=3, seed=4, desc_name="r50")
    shutil.copy(data / "landmarks_train/train.txt", photographs)
    for name in ("test_query.txt", "test_gallery.txt"):
        shutil.copy(data / "landmarks_test" / name, photographs)
    shutil.copy(data / "landmarks_test/gnd_toy.pkl", photographs / "gnd_landmarks.pkl")

    settings = {
        "RRT_PYTHON": str(warm_python("torch")),
        "DATA": str(data),
        "LOGS": str(tmp_path / "logs"),
        "HELD_OUT": "--landmarks 2 --queries 2 --distractors 4",
    }
    log = tmp_path / "logs/train_r50_gldv2"
    for epochs in (1, 2):
        done = call("train_r50_gldv2.sh", *TRAINING, f"epochs={epochs}", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        history = json.loads((log / "history.json").read_text())
        assert [figures["epoch"] for figures in history] == list(range(1, epochs + 1))
        assert all({"val_M_map", "roxford5k_M_map", "roxford5k_H_map"} <= figures.keys() for figures in history)
    checkpoint = load_checkpoint(log / "best.pt")
    assert checkpoint.settings["training"]["max_norm"] == 0.0 and checkpoint.settings["selection"]["select_on"] == "val"
    assert "RRT" in json.loads((log / "roxf/results.json").read_text())
    assert "paris6k/delg_r50_gldv2.h5: no such store" in done.stdout
    held_out = set(read_image_list(data / "gldv2_val/test_query.txt").labels.tolist())
    assert held_out.isdisjoint(read_image_list(data / "gldv2_train/train.txt").labels.tolist())

    settings |= {"BACKBONE": "r50", "WHITENING": "--dim 10"}
    done = call("train_landmarks.sh", photographs, **settings, TRAINING=" ".join(TRAINING))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "logs/rrt_landmarks_r50/results.json").read_text())
    assert (
        results["protocol"]["selected"]["select_on"] == "val"
        and "whitening_r50.npz" in results["protocol"]["whitening"]
    )
    assert (tmp_path / "logs/rrt_landmarks_r50/alone/results.json").exists()
