"""A store is the same whichever process of an extraction, one or several, is killed at whichever file operation."""

from dataclasses import replace

import numpy as np
from builders import make_records
from faults import every, fork_workers, kill_everywhere
from PIL import Image

from rrt.extraction.extract import Plan, extract
from rrt.formats.image_jobs import Job
from rrt.store.finished import is_complete, writing
from rrt.store.store import Store

NAMES = [f"p{i}.png" for i in range(5)]


class Describer:
    """Tells of an image what its first pixel says."""

    def __init__(self, threads):
        pass

    def describe(self, image, name, resize_factor):
        return replace(make_records([name], int(image[0, 0, 0]), num_local=3)[0], name=name)


def state(path):
    """All numbers of the store, and what lies beside it, as text."""
    store = Store(path)
    images = [
        (record.name, record.global_.tolist(), record.descriptors.tolist()) for record in (i.record() for i in store)
    ]
    return repr((images, sorted(file.name for file in path.parent.iterdir())))


def test_an_extraction_by_two_processes_one_of_which_is_killed_is_resumed(tmp_path, monkeypatch):
    fork_workers(monkeypatch)
    for number, name in enumerate(NAMES[:4]):  # the last is missing
        Image.fromarray(np.full((12, 12, 3), number, np.uint8)).save(tmp_path / name)
    store = tmp_path / "data" / "delg_x.h5"
    store.parent.mkdir()
    plan = Plan(Describer, tuple(Job(name, tmp_path / name) for name in NAMES), str(store), {"a": 1}, block=1)

    def run():
        with writing(plan.output):
            if not is_complete(plan.output, NAMES, plan.identity):
                extract(plan, "0" * 64, "x", num_workers=2)

    kill_everywhere(store.parent, run, lambda: state(store), every(12))
