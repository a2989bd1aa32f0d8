"""A report that is killed at any file operation is, written again, the one that a run without a kill writes."""

import json
import re

import pytest
from evaluations import make_evaluation, make_pictures
from faults import every, fork_workers, forked, kill_everywhere

from rrt.files.locks import owned
from rrt.report import thumbnails
from rrt.report.pages import make_report


def state(folder):
    """Every file by its name and bytes, but for the time of the run and the digest that it enters."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = re.sub("data-[0-9a-f]{12}", "data", str(file.relative_to(folder)))
        assert name not in found, f"two of {name}"
        found[name] = re.sub(rb'data-[0-9a-f]{12}|"date":"[^"]*"', b"", file.read_bytes()).hex()
    return json.dumps(found)


@pytest.mark.parametrize("before", [False, True], ids=["new", "in place of another"])
def test_a_report_killed_at_any_file_operation_is_written_again(tmp_path, monkeypatch, before):
    fork_workers(monkeypatch)
    monkeypatch.setattr(thumbnails, "_FEW", 1)  # two processes make them
    names = make_evaluation(tmp_path / "rrt", queries=2, gallery=11)
    make_pictures(tmp_path / "rrt/data", [*names[0], *names[1]])
    out = tmp_path / "report"
    out.mkdir()

    def report():
        with owned(out, "writing this report"):
            make_report([tmp_path / "rrt"], out, num_workers=2)

    if before:
        make_evaluation(tmp_path / "other", queries=2, gallery=10, seed=1, data_dir=tmp_path / "rrt/data")
        assert forked(lambda: make_report([tmp_path / "other"], out) and "")[0] == 0
    kill_everywhere(out, report, lambda: state(out), every(30))
