"""The twelve extraction scripts: three lines each, one table, the commands that they run."""

import os
import subprocess
from pathlib import Path

import pytest
from commands import ROOT

from rrt.configs import dataset_configs
from rrt.datasets.sets import TEST_LISTS, store_path

SCRIPTS = ROOT / "delg_extract" / "scripts"
MODELS = {
    "r50_gldv1": "r50delg_gld_20200814",
    "r101_gldv1": "r101delg_gld_20200814",
    "r50_gldv2": "r50delg_gldv2clean_20200914",
    "r101_gldv2": "r101delg_gldv2clean_20200914",
}
SETS = {"oxford": ("oxford5k", "gnd_roxford5k.pkl"), "paris": ("paris6k", "gnd_rparis6k.pkl"), "gldv2": ("gldv2", None)}
TWELVE = [(name, preset) for name in SETS for preset in MODELS]
SETTINGS = ("DATA", "LOGS", "DELG_MODELS", "WEIGHTS", "IMAGE_DIR", "LIST", "QUERY_LIST", "GROUND_TRUTH", "OUTPUT")


@pytest.fixture
def run(tmp_path):
    """Runs a script with a Python that only prints what it was asked to do -> (exit status, arguments, stderr)."""
    stub = tmp_path / "bin" / "py thon"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)

    def run(script, *arguments, **settings):
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        environment |= {
            "RRT_PYTHON": str(stub),
            "DATA": str(tmp_path / "my data"),
            "DELG_MODELS": str(tmp_path / "models"),
        } | settings
        done = subprocess.run(
            ["bash", str(SCRIPTS / script), *arguments],
            env=environment,
            cwd=tmp_path,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        folder, *arguments = done.stdout.splitlines() or [ROOT]
        assert Path(folder) == ROOT
        return done.returncode, arguments, done.stderr

    return run


@pytest.fixture
def data(tmp_path):
    """The files that the scripts look for, empty."""
    for model in MODELS.values():
        (tmp_path / "models" / model).mkdir(parents=True)
        (tmp_path / "models" / model / "saved_model.pb").touch()
    for folder, file in (("oxford5k", "test_gallery.txt"), ("paris6k", "test_gallery.txt"), ("gldv2", "train.txt")):
        (tmp_path / "my data" / folder).mkdir(parents=True)
        (tmp_path / "my data" / folder / file).touch()
    return tmp_path / "my data"


def options(arguments):
    """[script, --a, x, --b, y] -> {a: x, b: y}, every option once."""
    assert arguments[0] == "delg_extract/extract.py"
    pairs = list(zip(arguments[1::2], arguments[2::2]))
    assert len(arguments) == 1 + 2 * len(pairs) == 1 + 2 * len(dict(pairs))
    return {name.removeprefix("--"): value for name, value in pairs}


def test_there_are_twelve_scripts_of_at_most_three_lines():
    expected = {f"extract_{name}_{preset}.sh" for name, preset in TWELVE}
    assert {path.name for path in SCRIPTS.glob("extract_*.sh")} == expected
    for script in expected:
        assert len((SCRIPTS / script).read_text().splitlines()) <= 3
        assert os.access(SCRIPTS / script, os.X_OK)


def test_all_scripts_are_valid_shell():
    for script in SCRIPTS.glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0, script


@pytest.mark.parametrize("name, preset", TWELVE)
def test_a_script_runs_the_expected_command(run, data, tmp_path, name, preset):
    status, arguments, error = run(f"extract_{name}_{preset}.sh")
    assert (status, error) == (0, "")
    folder, gnd = data / SETS[name][0], SETS[name][1]
    expected = {
        "model": tmp_path / "models" / MODELS[preset],
        "preset": preset,
        "image_dir": folder,
        "list": folder / ("test_gallery.txt" if gnd else "train.txt"),
        "output": folder / f"delg_{preset}.h5",
    }
    if gnd:
        expected |= {"query_list": folder / "test_query.txt", "ground_truth": folder / gnd}
    assert options(arguments) == {option: str(value) for option, value in expected.items()}


@pytest.mark.parametrize("name, preset", TWELVE)
def test_stores_and_lists_lie_where_the_configurations_look_for_them(run, tmp_path, name, preset):
    (tmp_path / "list").touch()
    by_default = options(run(f"extract_{name}_{preset}.sh", WEIGHTS="w", DATA="", LIST=str(tmp_path / "list"))[1])
    config = dataset_configs()[f"gldv2_roxford_{preset}" if name == "gldv2" else f"r{name}_{preset}"]
    folder = config["train_data_dir" if name == "gldv2" else "test_data_dir"]
    assert by_default["output"] == str(store_path(folder, config["desc_name"]))
    assert by_default["image_dir"] == folder
    if name != "gldv2":
        assert by_default["ground_truth"] == f"{folder}/{config['test_gnd_file']}"
        assert by_default["query_list"] == f"{folder}/{TEST_LISTS[0]}"


def test_further_options_are_passed_on_last(run, data):
    _, arguments, _ = run("extract_gldv2_r50_gldv2.sh", "--num_workers", "4", "--output", "a b.h5", "--allow_missing")
    assert arguments[-5:] == ["--num_workers", "4", "--output", "a b.h5", "--allow_missing"]


def test_an_own_checkpoint_takes_the_place_of_the_published_model_and_its_threshold(run, data):
    status, arguments, _ = run("extract_oxford_r50_gldv2.sh", WEIGHTS="logs/my delg/weights.h5")
    assert status == 0
    assert options(arguments)["model"] == "logs/my delg/weights.h5" and "preset" not in options(arguments)


def test_every_path_can_be_chosen(run, data, tmp_path):
    chosen = {name: str(tmp_path / name) for name in ("IMAGE_DIR", "LIST", "QUERY_LIST", "GROUND_TRUTH", "OUTPUT")}
    (tmp_path / "LIST").touch()
    found = options(run("extract_paris_r101_gldv1.sh", **chosen)[1])
    assert {name: found[name.lower()] for name in chosen} == chosen


@pytest.mark.parametrize("name, preset", TWELVE)
def test_a_missing_model_is_one_line_with_the_command_that_fetches_it(run, tmp_path, name, preset):
    status, arguments, error = run(f"extract_{name}_{preset}.sh")
    model = tmp_path / "models" / MODELS[preset]
    assert (status, arguments) == (1, [])
    assert error == (
        f"error: {model}: no such model; fetch it with: {tmp_path}/bin/py thon delg_extract/download_weights.py "
        f"{preset}\n"
    )


def test_the_named_command_knows_the_models_by_the_same_names():
    source = (ROOT / "delg_extract" / "download_weights.py").read_text()
    for preset, model in MODELS.items():
        assert f'"{preset}": "{model}"' in source


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("oxford", "download_revisited.sh oxford5k"),
        ("paris", "download_revisited.sh paris6k"),
        ("gldv2", "tools/prepare_data.py gldv2_train"),
    ],
)
def test_a_missing_list_is_one_line_with_the_command_that_makes_it(run, tmp_path, name, remedy):
    status, arguments, error = run(f"extract_{name}_r50_gldv1.sh", WEIGHTS="w")
    assert (status, arguments) == (1, [])
    assert (
        error.startswith("error: ")
        and ".txt: no such list; make it with: " in error
        and remedy in error
        and error.count("\n") == 1
    )


@pytest.mark.parametrize(
    "arguments",
    [(), ("oxfrd", "r50", "gldv1"), ("oxford", "r18", "gldv1"), ("oxford", "r50"), ("oxford", "r50", "gldv3")],
)
def test_wrong_names_are_one_line(run, arguments):
    status, _, error = run("extract.sh", *arguments)
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1


def test_help_tells_the_settings():
    done = subprocess.run(["bash", str(SCRIPTS / "extract.sh"), "--help"], text=True, capture_output=True)
    assert (
        done.returncode == 0
        and all(name in done.stdout for name in SETTINGS if name != "LOGS")
        and "set -e" not in done.stdout
    )
