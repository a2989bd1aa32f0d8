"""rrt/datasets/configured.py: held-out landmarks are found, kept apart from training and named in the log; watched sets
choose nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from reranking import make_test_world, make_world
from training_runs import run

from rrt.configs import dataset_configs
from rrt.datasets.configured import check_apart, open_test, resolve_split, split_command
from rrt.datasets.sets import open_test_set, open_train_set
from rrt.datasets.settings import DatasetSettings
from rrt.datasets.split import train_val_split
from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.formats.ground_truth import grades_of
from rrt.formats.lists import read_image_list
from rrt.network.checkpoint import load_checkpoint
from rrt.search.neighbors import prepare_topk_gldv2
from rrt.search.table import load_neighbors


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A whole training set, two test sets, and landmarks held out as the README says."""
    root = tmp_path_factory.mktemp("data")
    for name in ("gldv2", "oxford5k", "paris6k"):
        (root / name).mkdir()
    make_world(root / "gldv2")
    for seed, name in enumerate(("oxford5k", "paris6k")):
        make_test_world(root / name, landmarks=3, seed=seed + 1)
        (root / name / "gnd_toy.pkl").rename(root / name / f"gnd_r{name}.pkl")
    train_val_split(
        root / "gldv2/train.txt",
        root / "gldv2_train",
        root / "gldv2_val",
        "gldv2_val",
        landmarks=2,
        queries=2,
        distractors=5,
        link_stores=True,
    )
    prepare_topk_gldv2(root / "gldv2_train", "toy")
    prepare_topk_revisited(root / "gldv2_val", "toy", "gnd_gldv2_val.pkl")
    return root


def configuration(root, **changes):
    entries = {"desc_name": "toy", "train_data_dir": str(root / "gldv2"), "test_data_dir": str(root / "oxford5k")}
    own = {"test_gnd_file": "gnd_roxford5k.pkl", "batch_size": 12}
    return DatasetSettings(**dataset_configs()["gldv2_roxford_r50_gldv2"] | entries | own | changes)


def train(root, folder, dataset=None, **settings):
    return run(configuration(root, **dataset or {}), folder, **{"epochs": 1, "steps_per_epoch": 1} | settings)


def test_no_held_out_landmark_is_trained_on_and_no_image_of_one_is_a_neighbour(data, tmp_path, monkeypatch):
    whole = read_image_list(data / "gldv2/train.txt")
    label_of = dict(zip(whole.names, whole.labels.tolist()))
    validation = open_test_set(data / "gldv2_val", "toy", "gnd_gldv2_val.pkl")
    held_out = {label_of[name] for name in validation.images.query.names}
    assert len(held_out) == 2
    seen = []
    monkeypatch.setattr("rrt.training.run.open_train_set", lambda *a: seen.append(open_train_set(*a)) or seen[0])
    train(data, tmp_path)
    (trained,) = seen
    assert len(trained.images) == len(whole) - 16
    assert held_out.isdisjoint(label_of[name] for name in trained.images.names)
    # Places of neighbours are lines of the list just looked at, so that no other image can be one.
    neighbours = load_neighbors(data / "gldv2_train/nn_inds_toy.pkl")
    assert neighbours.max() < len(trained.images) and (trained.neighbors == neighbours).all()
    graded = np.concatenate([entry[grade] for entry in validation.gnd for grade in grades_of(entry)])
    positives = {validation.images.gallery.names[place] for place in graded}
    assert positives.isdisjoint(trained.images.names) and {label_of[name] for name in positives} == held_out


def test_the_named_data_set_chooses_on_held_out_landmarks_by_itself_and_says_so(data, tmp_path, capsys):
    result = train(data, tmp_path)
    assert result.selected_on == "val"
    said = capsys.readouterr().out
    assert f"training on {data}/gldv2_train/train.txt; the best epoch is chosen on the held-out landmarks of" in said
    settings = load_checkpoint(result.best).settings
    assert (
        settings["dataset"]["val_data_dir"] == str(data / "gldv2_val") and settings["selection"]["select_on"] == "val"
    )
    assert settings["dataset"]["train_data_dir"] == str(data / "gldv2_train")


def test_without_held_out_landmarks_the_last_epoch_is_kept_and_the_log_says_how_to_hold_some_out(
    data, tmp_path, capsys
):
    (tmp_path / "gldv2").symlink_to(data / "gldv2")
    result = train(data, tmp_path / "run", {"train_data_dir": str(tmp_path / "gldv2")})
    assert result.selected_on == "last"
    said = capsys.readouterr().out
    assert "NO VALIDATION LANDMARKS: the last epoch is kept" in said
    assert (
        f"tools/train_val_split.py {tmp_path}/gldv2/train.txt {tmp_path}/gldv2_train {tmp_path}/gldv2_val --name"
        in said
    )


def test_the_command_in_the_log_makes_what_is_looked_for(data, tmp_path):
    folder = tmp_path / "gldv2"
    folder.mkdir()
    (folder / "train.txt").write_bytes((data / "gldv2/train.txt").read_bytes())
    dataset = configuration(tmp_path)
    assert resolve_split(dataset).val_data_dir is None
    _, _, whole, train_part, val, _, name, *_ = split_command(dataset).split()
    train_val_split(whole, train_part, val, name, landmarks=2)
    resolved = resolve_split(dataset)
    assert resolved.train_data_dir == train_part and resolved.val_data_dir == val
    assert (Path(val) / resolved.val_gnd_file).exists()


def test_the_published_way_trains_on_all_landmarks_and_says_that_it_chose_on_the_test_set(data, tmp_path, capsys):
    result = train(data, tmp_path, select_on="test")
    said = capsys.readouterr().out
    assert f"training on {data}/gldv2/train.txt; the best epoch is chosen on the TEST SET {data}/oxford5k" in said
    settings = load_checkpoint(result.best).settings
    assert settings["selection"]["select_on"] == "test" and settings["dataset"]["val_data_dir"] is None
    assert {"test_M_map", "test_H_map"} <= result.history[0].keys()


def test_watched_sets_are_logged_under_their_names_and_choose_nothing(data, tmp_path, capsys):
    files = [str(data / folder / f"gnd_r{folder}.pkl") for folder in ("oxford5k", "paris6k")]
    watched = train(data, tmp_path / "a", epochs=2, watch_test=",".join(files))
    assert "for the log alone: roxford5k, rparis6k" in capsys.readouterr().out
    names = {f"{name}_{p}_map" for name in ("roxford5k", "rparis6k") for p in "EMH"}
    assert all(names | {"val_M_map"} <= figures.keys() for figures in watched.history)
    alone = train(data, tmp_path / "b", epochs=2)
    assert watched.selected_epoch == alone.selected_epoch
    assert (tmp_path / "a/best.pt").stat().st_size > 0
    both = [load_checkpoint(result.best).state for result in (watched, alone)]
    assert all((both[0][name] == both[1][name]).all() for name in both[0])
    assert names.isdisjoint(json.loads((tmp_path / "b/history.json").read_text())[0])


@pytest.mark.parametrize(
    "watch, named",
    [
        ("{data}/nowhere/gnd_x.pkl", "nowhere/test_query.txt"),
        ("{data}/oxford5k/gnd_roxford5k.pkl,{data}/oxford5k/gnd_roxford5k.pkl", "logged as 'roxford5k' like another"),
        ("{data}/oxford5k/gnd_roxford5k.pkl,", "expected True, None or ground truth files"),
        (7, "expected True, None or ground truth files"),
    ],
)
def test_a_watched_set_that_cannot_be_measured_is_an_error_before_training(data, tmp_path, watch, named):
    watch = watch.format(data=data) if isinstance(watch, str) else watch
    with pytest.raises(InputError, match=named):
        train(data, tmp_path / "run", watch_test=watch)
    assert not (tmp_path / "run").exists()


def test_training_on_an_image_that_is_held_out_is_refused(data, tmp_path):
    dataset = {
        "train_data_dir": str(data / "gldv2"),
        "val_data_dir": str(data / "gldv2_val"),
        "val_gnd_file": "gnd_gldv2_val.pkl",
    }
    with pytest.raises(
        InputError, match=r"train.txt:\d+: 'jpg/.*' is a held-out image of .*gldv2_val, too \(16 of them"
    ):
        train(data, tmp_path / "run", dataset)
    assert not (tmp_path / "run").exists()
    # Images of another data set may have the same names.
    other = open_test_set(data / "oxford5k", "toy", "gnd_roxford5k.pkl")
    check_apart(open_train_set(data / "gldv2", "toy", "train.txt", True), other)


def test_a_run_is_not_resumed_on_other_landmarks(data, tmp_path):
    train(data, tmp_path)
    with pytest.raises(InputError, match="dataset.train_data_dir=.*gldv2_train, now .*gldv2;"):
        train(data, tmp_path, select_on="test", resume="auto")


def test_a_list_held_out_anew_does_not_continue_the_old_run(data, tmp_path):
    for name in ("gldv2", "gldv2_train", "gldv2_val"):
        (tmp_path / name).mkdir()
        for file in (data / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    train(tmp_path, tmp_path / "run")
    images = read_image_list(data / "gldv2/train.txt")
    train_val_split(
        images.path, tmp_path / "gldv2_train", tmp_path / "gldv2_val", "gldv2_val", landmarks=2, queries=2, seed=2
    )
    prepare_topk_gldv2(tmp_path / "gldv2_train", "toy")
    prepare_topk_revisited(tmp_path / "gldv2_val", "toy", "gnd_gldv2_val.pkl")
    with pytest.raises(InputError, match="train_list_sha256"):
        train(tmp_path, tmp_path / "run", resume="auto", epochs=2)


def test_fusion_is_tuned_on_the_same_held_out_landmarks(data, tmp_path):
    assert open_test(configuration(data), "val").folder == data / "gldv2_val"
    with pytest.raises(
        InputError, match="no validation landmarks; hold some out with: python tools/train_val_split.py"
    ):
        open_test(configuration(tmp_path), "val")


def test_a_neighbour_table_of_all_landmarks_is_refused_for_the_training_part(data, tmp_path):
    for name in ("gldv2", "gldv2_train", "gldv2_val"):
        (tmp_path / name).symlink_to(data / name)
    (tmp_path / "gldv2_train").unlink()
    (tmp_path / "gldv2_train").mkdir()
    for name in ("train.txt", "delg_toy.h5"):
        (tmp_path / "gldv2_train" / name).write_bytes((data / "gldv2_train" / name).read_bytes())
    for file in (data / "gldv2").glob("nn_inds*"):
        (tmp_path / "gldv2_train" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="nn_inds_toy.pkl"):
        train(tmp_path, tmp_path / "run")
