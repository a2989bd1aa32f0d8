"""rrt/command_line/records.py: a run is recorded by its results, or in a MongoDB, whose absence it survives."""

import errno
import json
import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import files_below
from pymongo.errors import ServerSelectionTimeoutError
from sacred.observers import FileStorageObserver

from rrt.command_line import records as run_records
from rrt.command_line.records import MongoRecord, StrictMongoObserver
from rrt.command_line.sacred import make_experiment, run_sacred
from rrt.errors import InputError

ex = make_experiment("recorded")
ex.add_config({"temp_dir": "out", "text": "all is well", "fail": None})


@ex.main
def main(_run, text, fail):
    """Everything a record holds."""
    print(text)
    if fail == "at once":
        raise InputError("no such file")
    if fail == "bug":
        raise ZeroDivisionError
    _run.log_scalar("loss", 0.5, 1)
    _run.info["results"] = {"M_map": 50.0}
    with open("artefact.txt", "w") as file:
        file.write(text)
    _run.add_artifact("artefact.txt")
    _run._emit_heartbeat()
    _run.log_scalar("loss", 0.25, 2)
    if fail == "later":
        raise InputError("no such file")
    return {"M_map": 50.0}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*arguments) -> (lines of standard output, of standard error) of the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        run_sacred(ex, ["recorded.py", *arguments])
        out, err = capsys.readouterr()
        return out.splitlines(), err.splitlines()

    return run


def assert_whole(folder):
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "COMPLETED" and record["result"] == {"M_map": 50.0}
    assert record["artifacts"] == ["artefact.txt"] and (folder / "artefact.txt").read_text() == "all is well"
    assert json.loads((folder / "info.json").read_text())["results"] == {"M_map": 50.0}
    assert json.loads((folder / "metrics.json").read_text())["loss"]["values"] == [0.5, 0.25]
    assert "all is well" in (folder / "cout.txt").read_text().splitlines()
    assert json.loads((folder / "config.json").read_text())["text"] == "all is well"


def test_without_an_option_a_run_is_recorded_in_its_temp_dir(run, tmp_path):
    assert run("with", "temp_dir=logs/mine")[0][-1] == "run recorded in logs/mine/1"
    assert_whole(tmp_path / "logs/mine/1")
    assert run("with", "temp_dir=logs/mine")[0][-1] == "run recorded in logs/mine/2"


def test_a_folder_of_choice_is_the_only_one(run, tmp_path):
    run("-F", "chosen")
    assert_whole(tmp_path / "chosen/1")
    assert not (tmp_path / "out").exists()


def test_unobserved_runs_and_printed_settings_leave_nothing(run, tmp_path):
    run("-u")
    run("print_config")
    assert files_below(tmp_path) == ["artefact.txt"]


def test_a_run_that_wrong_input_ends_at_once_leaves_nothing(run, tmp_path):
    with pytest.raises(SystemExit):
        run("with", "fail='at once'")
    with pytest.raises(SystemExit):
        run("with", "text=1")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("fail", ["later", "bug"])
def test_other_failures_are_recorded(run, tmp_path, fail):
    with pytest.raises(SystemExit):
        run("with", f"fail={fail}")
    assert json.loads((tmp_path / "out/1/run.json").read_text())["status"] == "FAILED"


@pytest.mark.parametrize("full, starts", [("run.json", False), ("config.json", False), ("metrics.json", True)])
def test_on_a_full_disk_the_run_goes_on_with_one_warning(run, tmp_path, monkeypatch, full, starts):
    save = FileStorageObserver.save_json

    def save_json(self, content, name):
        if name == full:
            raise OSError(errno.ENOSPC, "No space left on device", f"{self.dir}/{name}")
        save(self, content, name)

    monkeypatch.setattr(FileStorageObserver, "save_json", save_json)
    out, err = run()
    loss = "the record of the run ends here" if starts else "the run is not recorded"
    full = "no room is left on the disk; make room or write elsewhere, and run again"
    assert (out, err) == (["all is well"], [f"WARNING: out/1: {full}; {loss}"])
    assert (tmp_path / "out/1").exists() == starts


def test_a_part_of_a_copied_source_is_not_left_for_later_runs(run, tmp_path, monkeypatch):
    def copyfile(source, target):
        with open(target, "w") as file:
            file.write("a part")
        raise OSError(errno.ENOSPC, "No space left on device", target)

    with monkeypatch.context() as patched:
        patched.setattr("sacred.observers.file_storage.copyfile", copyfile)
        _, err = run()
    assert len(err) == 1 and err[0].startswith("WARNING: out/1: no room")
    assert not (tmp_path / "out/_sources").exists()
    assert run()[0][-1] == "run recorded in out/1"


def test_from_python_nothing_is_recorded(run, tmp_path):
    run("with", "text=x")
    assert ex.run(config_updates={"temp_dir": "python"}).observers == []
    assert not (tmp_path / "python").exists()


@pytest.fixture
def closed_port(monkeypatch):
    """A port of this machine at which nobody listens, and little patience."""
    monkeypatch.setattr(run_records, "PATIENCE_MS", 200)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


def test_an_absent_mongodb_is_one_warning_and_a_record_in_files(run, tmp_path, closed_port):
    out, err = run("-m", f"127.0.0.1:{closed_port}:rrt")
    assert len(err) == 1 and err[0].startswith("WARNING: MongoDB: 127.0.0.1:") and err[0].endswith("recorded in out/1")
    assert out[-1] == "run recorded in out/1"
    assert_whole(tmp_path / "out/1")
    meta = json.loads((tmp_path / "out/1/run.json").read_text())["meta"]
    assert meta["options"]["--mongo_db"] == f"127.0.0.1:{closed_port}:rrt"


def test_with_a_folder_of_choice_there_is_one_record(run, tmp_path, closed_port):
    err = run("-F", "chosen", "-m", f"127.0.0.1:{closed_port}:rrt")[1]
    assert len(err) == 1 and err[0].endswith("recorded in the folder of -F alone")
    assert_whole(tmp_path / "chosen/1")
    assert not (tmp_path / "out").exists()


def test_without_pymongo_the_record_goes_to_files(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymongo", None)
    err = run("-m", "rrt")[1]
    assert len(err) == 1 and "pymongo" in err[0]
    assert_whole(tmp_path / "out/1")


def test_a_senseless_address_is_one_line(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("-m", "local host")
    assert ended.value.code == 1
    assert (
        capsys.readouterr().err == "error: -m 'local host': expected [HOST:PORT:]DB, for example localhost:27017:rrt\n"
    )


class Collection:
    """As much of a MongoDB collection as Sacred uses, which is lost after some calls."""

    name = "runs"

    def __init__(self, calls=10**6):
        self.documents, self.calls = {}, calls

    def _call(self):
        self.calls -= 1
        if self.calls < 0:
            raise ServerSelectionTimeoutError("server:27017: connection refused (configured timeouts: x), Timeout: 5s")

    def count_documents(self, *_, **__):
        self._call()
        return 0

    def find(self, *_):
        return SimpleNamespace(sort=lambda *_: SimpleNamespace(limit=lambda _: None))

    def insert_one(self, document):
        self._call()
        self.documents[document["_id"]] = dict(document)

    def update_one(self, query, update, upsert=False):
        self._call()
        self.documents.setdefault(query.get("_id"), {}).update(update.get("$set", {}))
        return SimpleNamespace(upserted_id=None)


class Files:
    def find_one(self, _):
        return None

    def put(self, *_, **__):
        return 1


@pytest.fixture
def mongo(monkeypatch):
    """mongo(calls) -> the collection that the next run is recorded in, lost after so many calls."""

    def mongo(calls=10**6):
        runs = Collection(calls)

        def record(where, has_files, numbered):
            def connect():
                return StrictMongoObserver.create_from(runs, Files(), metrics_collection=Collection())

            return MongoRecord(connect, has_files, numbered)

        monkeypatch.setattr("rrt.command_line.sacred_runs.mongo_record", record)
        return runs

    return mongo


def test_a_mongodb_that_answers_has_the_whole_record_and_no_files_are_written(run, tmp_path, mongo):
    runs = mongo()
    out, err = run("-m", "rrt")
    assert (out, err) == (["all is well"], [])
    document = runs.documents[1]
    assert document["status"] == "COMPLETED" and document["result"] == {"M_map": 50.0}
    assert document["info"]["results"] == {"M_map": 50.0} and document["artifacts"][0]["name"] == "artefact.txt"
    assert files_below(tmp_path) == ["artefact.txt"]


@pytest.mark.parametrize("calls", range(2, 6))
def test_a_mongodb_lost_during_the_run_is_one_warning_and_a_whole_record_in_files(run, tmp_path, mongo, calls):
    mongo(calls)
    err = run("-m", "rrt")[1]
    assert err == ["WARNING: MongoDB: server:27017: connection refused; the run is recorded in out/1"]
    assert_whole(tmp_path / "out/1")


def test_numbers_that_mongodb_cannot_hold_are_made_text():
    runs = Collection()
    observer = StrictMongoObserver.create_from(runs, Files())
    observer.run_entry = {"_id": 1, "value": np.float32(1)}
    from bson.errors import InvalidDocument

    def once(*arguments, **_):
        runs.update_one = lambda query, update, upsert: runs.documents.update({1: update["$set"]})
        raise InvalidDocument("cannot encode")

    runs.update_one = once
    observer.save()
    assert runs.documents[1]["value"] == "1.0"
