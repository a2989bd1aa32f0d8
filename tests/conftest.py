"""Fixtures of all tests. Photographs and golden vectors that may not be copied here lie beside the repository."""

import gc
import os
import subprocess
from contextlib import suppress

# Before NumPy and PyTorch are loaded: with more threads than cores the workers of rrt_scripts/test.sh wait for each
# other (a group of tests took 72 s so, and 561 s without on a busy machine).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Extractions with PyTorch take all cores nevertheless. Threads that wait for one that has no core just then would fill
# theirs: a small product of matrices took 5 ms of processor time so, and takes 0.08.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import builders
import pytest
from commands import keep_warm_pythons, stop_warm_pythons
from hypothesis import settings
from places import SHARED
from sharing import Sharing, are_shared, collects

# The same examples on every machine and every run; no deadline, because two busy cores would miss it now and then.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing:
        import torch  # not where nothing needs it: TensorFlow may be in this process

        if not torch.cuda.is_available():
            for item in needing:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
    items.sort(key=lambda item: item.path not in slow)


def pytest_ignore_collect(collection_path, config):
    shared = getattr(config, "workerinput", {}).get("shared")
    return (shared is not None and not collects(shared, collection_path)) or None


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node):
    if are_shared(node.config):
        node.workerinput["shared"] = int(node.gateway.id.removeprefix("gw"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Sharing(config) if are_shared(config) else None


def pytest_collection(session):
    """What is loaded while tests are collected stays: it is left alone by the search for garbage, then and later, also
    in the forks that some tests make, which would have to copy it."""
    gc.disable()


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()


def pytest_configure(config):
    # Workers of pytest-xdist, and a pytest that a test starts, share what is loaded.
    if not hasattr(config, "workerinput") and "RRT_WARM_PYTHONS" not in os.environ:
        keep_warm_pythons()


def pytest_unconfigure():
    stop_warm_pythons()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node, error):
    """Says how a worker ended that was not told to: by which signal, or by which status."""
    if error:
        process = node.gateway._io.popen
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        print(f"\n{node.gateway.id} ended with status {process.poll()} (negative: a signal)", flush=True)


def _beside_the_repository(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/{name}, which is not beside this clone")
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """../shared/data: real photographs, published ground truth and lists."""
    return _beside_the_repository("data")


@pytest.fixture(scope="session")
def shared_golden():
    """../shared/golden: inputs and the numbers that published programs give for them."""
    return _beside_the_repository("golden")


@pytest.fixture
def make_store():
    """builders.make_store(folder, n=6, num_local=5, ...) -> Store."""
    return builders.make_store


@pytest.fixture
def make_records():
    """builders.make_records(names, seed=0, num_local=5, ...) -> list of ImageRecord."""
    return builders.make_records


@pytest.fixture
def pictures(tmp_path):
    """Eight small images of two classes and their list."""
    return builders.write_pictures(tmp_path)


@pytest.fixture(scope="module")
def levels_once():
    """What a model of ONNX says of an image at one scale is computed once for all tests of a module, which look at the
    same few images -> what is known, a dictionary."""
    from rrt.extraction.describer import OnnxDescriber

    plain, known = OnnxDescriber.level, {}

    def level(describer, pixels):
        key = describer.sha256, describer._layer, pixels.shape, pixels.tobytes()
        if key not in known:
            known[key] = plain(describer, pixels)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxDescriber, "level", level)
        yield known


@pytest.fixture(scope="session")
def chromium():
    from browser import open_browser

    with open_browser() as opened:  # which takes seconds
        yield opened


@pytest.fixture(scope="module")
def browser(chromium):
    """A headless Chromium (browser.open_browser) that knows nothing of the pages of other modules."""
    from browser import forget

    return forget(chromium)
