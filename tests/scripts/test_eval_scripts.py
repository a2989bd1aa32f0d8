"""The sixteen evaluation scripts: three lines each, one table, the commands that they run."""

import json
import os
import signal
import subprocess
from dataclasses import replace

import pytest
import torch
from builders import records_in
from commands import ROOT, commands_in, stub_python, warm_python
from reranking import NETWORK, make_test_world, make_world

from rrt.configs import dataset_configs
from rrt.datasets.sets import neighbors_path, store_path
from rrt.network.checkpoint import save_checkpoint
from rrt.network.model import RRT
from rrt.store.store import Store
from rrt.store.writer import write_store

SCRIPTS = ROOT / "rrt_scripts"
DESCRIPTORS = ("r50_gldv1", "r50_gldv2", "r101_gldv1", "r101_gldv2")
SETS = {"roxf": ("roxford", "oxford5k", "oxford"), "rpar": ("rparis", "paris6k", "paris")}
SIXTEEN = [(desc, name, method) for desc in DESCRIPTORS for name in SETS for method in ("global", "rerank")]
SETTINGS = ("DATA", "LOGS", "CHECKPOINTS")


@pytest.fixture
def run(tmp_path):
    """Runs a script with a Python that only prints what it was asked to do -> (status, commands as lists, stderr)."""
    stub = stub_python(tmp_path)

    def run(script, *arguments, **settings):
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        own = {"RRT_PYTHON": str(stub), "DATA": str(tmp_path / "my data"), "CHECKPOINTS": str(tmp_path / "ckpts")}
        done = subprocess.run(
            ["bash", str(SCRIPTS / script), *arguments],
            env=environment | own | settings,
            cwd=tmp_path,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return done.returncode, commands_in(done.stdout), done.stderr

    return run


@pytest.fixture
def files(tmp_path):
    """Stores, neighbours and checkpoints that the scripts look for, empty."""
    (tmp_path / "ckpts").mkdir()
    for desc in DESCRIPTORS:
        (tmp_path / f"ckpts/{desc}.pt").touch()
        for _, folder, _ in SETS.values():
            (tmp_path / "my data" / folder).mkdir(parents=True, exist_ok=True)
            store_path(tmp_path / "my data" / folder, desc).touch()
            neighbors_path(tmp_path / "my data" / folder, desc).touch()
    return tmp_path / "my data"


def script_of(desc, name, method):
    return f"eval_{desc}_{name}_{method}.sh"


def test_there_are_sixteen_scripts_of_at_most_three_lines():
    assert {path.name for path in SCRIPTS.glob("eval_r*.sh")} == {script_of(*row) for row in SIXTEEN}
    for row in SIXTEEN:
        assert len((SCRIPTS / script_of(*row)).read_text().splitlines()) <= 3 and os.access(
            SCRIPTS / script_of(*row), os.X_OK
        )


@pytest.mark.parametrize("desc, name, method", SIXTEEN)
def test_a_script_runs_the_expected_command(run, files, tmp_path, desc, name, method):
    status, commands, error = run(script_of(desc, name, method), "num_rerank=7", LOGS="my logs")
    assert (status, error) == (0, "")
    config, folder, _ = SETS[name]
    expected = {
        "evaluate_revisited.py",
        "with",
        f"temp_dir=my logs/eval_{desc}_{name}_{method}",
        f"dataset.{config}_{desc}",
        "model.RRT",
        f"dataset.test_data_dir={files / folder}",
        "num_rerank=7",
    }
    assert len(commands) == 1
    assert set(commands[0]) == expected | ({f"resume={tmp_path}/ckpts/{desc}.pt"} if method == "rerank" else set())
    assert commands[0][-1] == "num_rerank=7"
    entries = dataset_configs()[f"{config}_{desc}"]
    assert (entries["test_data_dir"], entries["desc_name"]) == (f"data/{folder}", desc)


def test_missing_neighbours_are_computed_first(run, files):
    neighbors_path(files / "paris6k", "r101_gldv1").unlink()
    _, commands, _ = run("eval_r101_gldv1_rpar_global.sh")
    assert commands[0] == [
        "tools/prepare_topk_revisited.py",
        "with",
        f"data_dir={files / 'paris6k'}",
        "feature_name=r101_gldv1",
        "gnd_name=gnd_rparis6k.pkl",
    ]
    assert commands[1][0] == "evaluate_revisited.py"


def test_another_checkpoint_takes_the_place_of_the_published_one(run, files, tmp_path):
    (tmp_path / "ckpts/r50_gldv1.pt").unlink()
    _, commands, _ = run("eval_r50_gldv1_roxf_rerank.sh", "resume=my best.pt", "-F", "logs/x")
    assert commands[0][-3:] == ["resume=my best.pt", "-F", "logs/x"] and str(commands).count("resume=") == 1


def one_line(found):
    status, commands, error = found
    assert (status, commands) == (1, []) and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_missing_store_is_one_line_with_the_commands_that_make_it(run, files):
    for name, (_, folder, short) in SETS.items():
        store_path(files / folder, "r101_gldv2").unlink()
        error = one_line(run(f"eval_r101_gldv2_{name}_global.sh"))
        assert f"{folder}/delg_r101_gldv2.h5: no such store" in error and "tools/import_delg.py" in error
        script = f"delg_extract/scripts/extract_{short}_r101_gldv2.sh"
        assert script in error and (ROOT / script).exists()


def test_a_missing_checkpoint_is_one_line_with_the_command_that_trains_one(run, files, tmp_path):
    (tmp_path / "ckpts/r50_gldv2.pt").unlink()
    error = one_line(run("eval_r50_gldv2_roxf_rerank.sh", LOGS="here"))
    assert f"{tmp_path}/ckpts/r50_gldv2.pt: no such checkpoint; copy the published one there" in error
    assert "bash rrt_scripts/train_r50_gldv2.sh, and give resume=here/train_r50_gldv2/best.pt" in error
    assert (ROOT / "rrt_scripts/train_r50_gldv2.sh").exists()
    assert run("eval_r50_gldv2_roxf_global.sh")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("r18", "gldv1", "roxf", "global"),
        ("r50", "gldv1", "oxford", "global"),
        ("r50", "gldv1", "roxf"),
        ("r50", "gldv3", "roxf", "global"),
        ("r50", "gldv1", "rpar", "aqe"),
    ],
)
def test_wrong_names_are_one_line(run, arguments):
    one_line(run("eval.sh", *arguments))


@pytest.mark.parametrize("script, option", [("eval.sh", "--help"), ("eval_r101_gldv2_rpar_rerank.sh", "-h")])
def test_help_tells_the_settings(script, option):
    done = subprocess.run(["bash", str(SCRIPTS / script), option], text=True, capture_output=True)
    assert done.returncode == 0 and all(name in done.stdout for name in SETTINGS) and "set -e" not in done.stdout


def test_a_million_distractors_need_their_store_and_join_both_sets(run, files, tmp_path):
    error = one_line(run("eval_1m.sh", "r50", "gldv2"))
    assert "revisitop1m/delg_r50_gldv2.h5: no such store, nor a folder of its parts" in error
    one_line(run("eval_1m.sh", "r50", "gldv3"))
    (files / "revisitop1m/delg_r50_gldv2.h5").mkdir(parents=True)
    logs = tmp_path / "logs"
    (logs / "eval_1m_r50_gldv2/roxf").mkdir(parents=True)
    (logs / "eval_1m_r50_gldv2/roxf/results.json").touch()
    status, commands, _ = run("eval_1m.sh", "r50", "gldv2", "num_rerank=7", LOGS=str(logs))
    # ROxford was measured before.
    assert status == 0 and [command[0] for command in commands] == ["evaluate_revisited.py", "tools/published.py"]
    expected = {
        f"temp_dir={logs}/eval_1m_r50_gldv2/rpar",
        f"distractors={files}/revisitop1m/delg_r50_gldv2.h5",
        f"resume={tmp_path}/ckpts/r50_gldv2.pt",
        "num_rerank=7",
    }
    assert expected <= set(commands[0])
    error = run("eval_1m.sh", "r50", "gldv2", LOGS=str(logs))[2]
    assert "was measured with 'rerank num_rerank=7', this run has 'rerank '" in error
    (tmp_path / "ckpts/r50_gldv2.pt").unlink()
    status, commands, _ = run("eval_1m.sh", "r50", "gldv2", LOGS=str(tmp_path / "other"))
    assert status == 0 and not any("resume" in word for word in commands[0])


def environment_of(folder):
    """For a script that reads and writes below a folder."""
    return os.environ | {
        "RRT_PYTHON": str(warm_python("torch")),
        "DATA": str(folder / "data"),
        "LOGS": str(folder / "logs"),
        "CHECKPOINTS": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
def test_both_sets_with_distractors_are_measured_to_the_table_and_go_on_after_a_kill(tmp_path):
    for number, (_, folder, _) in enumerate(SETS.values()):
        data = tmp_path / "data" / folder
        data.mkdir(parents=True)
        make_test_world(data, landmarks=3, desc_name="r50_gldv2", seed=number)
        (data / "gnd_toy.pkl").rename(data / ("gnd_rparis6k.pkl" if number else "gnd_roxford5k.pkl"))
        neighbors_path(data, "r50_gldv2").unlink()
    (tmp_path / "made").mkdir()
    make_world(tmp_path / "made", landmarks=4, seed=5, desc_name="r50_gldv2")
    million = tmp_path / "data/revisitop1m/delg_r50_gldv2.h5"
    million.mkdir(parents=True)
    with Store(store_path(tmp_path / "made", "r50_gldv2")) as store:
        renamed = [replace(record, name=f"r1m/{record.name}") for record in records_in(store)]
    for part in range(2):
        write_store(million / f"part_{part}.h5", renamed[part::2])
    environment = environment_of(tmp_path)
    command = ["bash", str(SCRIPTS / "eval_1m.sh"), "r50", "gldv2", "reranker=maxsim", "cpu=True"]
    command.append("dataset.max_sequence_len=20")
    log, how = tmp_path / "logs/eval_1m_r50_gldv2", {"env": environment, "text": True, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **how) as killed:
        assert any("rpar with R1M" in line for line in killed.stdout)
        os.killpg(killed.pid, signal.SIGKILL)
    first = (log / "roxf/results.json").stat().st_mtime_ns
    assert not (log / "table.md").exists()
    done = subprocess.run(command, capture_output=True, **how)
    assert done.returncode == 0, done.stderr
    assert "roxf with R1M: measured before" in done.stdout and (log / "roxf/results.json").stat().st_mtime_ns == first
    table = (log / "table.md").read_text()
    assert table in done.stdout and table.count("| maxsim |") == 2 == table.count("| global |")
    assert "(32 images)" in table and json.loads((log / "rpar/results.json").read_text())["global"]["M_map"] >= 0


@pytest.mark.slow
def test_a_script_measures_a_small_data_folder(tmp_path):
    data = tmp_path / "data/paris6k"
    data.mkdir(parents=True)
    make_test_world(data, landmarks=3, desc_name="r50_gldv2")
    (data / "gnd_toy.pkl").rename(data / "gnd_rparis6k.pkl")
    neighbors_path(data, "r50_gldv2").unlink()
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "r50_gldv2.pt", RRT(**NETWORK))
    environment = environment_of(tmp_path)
    network = [f"model.{name}={value}" for name, value in NETWORK.items()]
    done = subprocess.run(
        ["bash", str(SCRIPTS / "eval_r50_gldv2_rpar_rerank.sh"), *network, "cpu=True"],
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "logs/eval_r50_gldv2_rpar_rerank"
    numbers = json.loads((folder / "results.json").read_text())
    assert json.loads((folder / "1/run.json").read_text())["result"]["H_map"] == numbers["RRT"]["H_map"]
