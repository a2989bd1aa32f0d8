"""Tasks of a Ray cluster in tests; a module of its own, because the workers import it."""

import os
import signal
from pathlib import Path

from rrt.errors import InputError


def work_or_die(*task):
    """What a worker does, but the one that finds the file of RRT_TEST_DIE, and takes it away, is killed."""
    from rrt.files import cluster

    try:
        Path(os.environ["RRT_TEST_DIE"]).unlink()
    except FileNotFoundError:
        return cluster._work(*task)
    os.kill(os.getpid(), signal.SIGKILL)


def open_delg(plan):
    """Make the weights and, in one process, the store of a plan of delg_extract."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    from delg_extract.extraction.parts import PartExtractor
    from delg_extract.network.model import Delg
    from delg_extract.network.weights import save_weights

    if not Path(plan.model).exists():
        save_weights(plan.model, Delg("small", seed=3), score_threshold=0.0)

    def work(_):
        extractor = PartExtractor(plan, threads=1)
        extractor.run(extractor.writer.missing_parts())
        return extractor.writer.merge()

    return work


def open_failing(kind):
    def work(part):
        raise InputError(f"{part} is bad") if kind == "bad" else OSError(5, "Input/output error", part)

    return work
