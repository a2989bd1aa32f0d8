"""Two test workers that do not collect the same tests: the first collects those that load PyTorch, the second those
that load TensorFlow. A worker that has run its own tests takes tests that both collect. With the schedulers of
pytest-xdist, each worker loads everything first."""

from pathlib import Path

import pytest
from places import ROOT

TESTS = ROOT / "tests"
# {folder or file of tests: the worker that collects it, None = both}; the longest path counts.
WORKERS = {
    "rrt": 0,
    "tools": 0,
    "scripts/test_eval_scripts.py": 0,
    "scripts/test_reproduce.py": 0,
    "scripts/test_rrt_train_scripts.py": 0,
    "delg_extract": 1,
    **dict.fromkeys(("rrt/command_line", "rrt/files", "rrt/formats", "rrt/matching", "rrt/photo_index", "rrt/scenes")),
    "rrt/files/test_atomic.py": 0,
    "rrt/photo_index/test_delg.py": 0,
    "rrt/photo_index/test_query.py": 0,
}


def worker_of(file: str) -> int | None:
    """The worker that collects a file, given relative to tests/; None = both."""
    place = Path(file)
    while place.name and place.as_posix() not in WORKERS:
        place = place.parent
    return WORKERS.get(place.as_posix())


def collects(worker: int, path: Path) -> bool:
    """Whether a worker collects a file or folder."""
    if not path.is_relative_to(TESTS):
        return True
    name = path.relative_to(TESTS).as_posix()
    return worker_of(name) in (None, worker) or any(place.startswith(f"{name}/") for place in WORKERS)


def are_shared(config: pytest.Config) -> bool:
    """Whether the tests of a run are shared in this way: the whole suite, two workers, and no new worker for one that
    dies."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return whole and config.getoption("numprocesses", 0) == 2 and config.getoption("maxworkerrestart", None) == "0"


class Sharing:
    """A scheduler of pytest-xdist that gives a worker one file at a time, in the order in which the worker collected
    them; files that only it collects come first."""

    collection_is_completed = True  # a worker begins as soon as it has collected

    def __init__(self, config: pytest.Config):
        self.config = config
        self.indices: list[dict[str, int]] = []  # {test: its index at the worker}, for each worker that has collected
        self.of_node: dict = {}  # {node: its position in `indices`}
        self.running: dict = {}  # {node: its tests that have not ended, in order}
        self.files: dict = {}  # {node: {file: its tests}} that it may still be given
        self.given: set[str] = set()

    @property
    def nodes(self) -> list:
        """The workers."""
        return list(self.running)

    @property
    def has_pending(self) -> bool:
        """Whether tests are still to be given to a worker, or to end."""
        return any(self.files.values()) or any(self.running.values())

    @property
    def tests_finished(self) -> bool:
        """Whether no more tests are to be given to a worker."""
        # A worker begins a test only when it knows the next one, or that there is none.
        return (
            len(self.indices) == 2 and not any(self.files.values()) and all(len(t) < 2 for t in self.running.values())
        )

    def add_node(self, node) -> None:
        """A worker has started."""
        self.running[node] = {}

    def add_node_collection(self, node, collection) -> None:
        """A worker has collected these tests."""
        self.of_node[node] = len(self.indices)
        self.indices.append({test: index for index, test in enumerate(collection)})
        files: dict[str, list[str]] = {}
        for test in collection:
            files.setdefault(test.split("::")[0], []).append(test)
        shared = [file for file in files if worker_of(file.removeprefix("tests/")) is None]
        order = [*(file for file in files if file not in shared), *shared]
        self.files[node] = {file: files[file] for file in order if file not in self.given}

    def schedule(self) -> None:
        """Gives its first tests to each worker that has collected."""
        session = self.config.pluginmanager.get_plugin("session")
        if session:  # for the percentages
            session.testscollected = len({test for tests in self.indices for test in tests})
        for node in list(self.files):
            self._fill(node)

    def mark_test_complete(self, node, item_index: int, duration: float = 0) -> None:
        """A worker has ended the test with this index in its collection."""
        del self.running[node][next(test for test in self.running[node] if self._index(node, test) == item_index)]
        self._fill(node)

    def remove_node(self, node) -> str | None:
        """A worker has ended; returns the test that it was running, if any."""
        self.files.pop(node, None)
        return next(iter(self.running.pop(node)), None)

    def _index(self, node, test: str) -> int:
        return self.indices[self.of_node[node]][test]

    def _fill(self, node) -> None:
        files, running = self.files[node], self.running[node]
        while files and len(running) < 3 and not node.shutting_down:
            file = next(iter(files))
            tests = files[file]
            self.given.add(file)
            for others in self.files.values():
                others.pop(file, None)
            running.update(dict.fromkeys(tests))
            node.send_runtest_some([self._index(node, test) for test in tests])
        if not files and not node.shutting_down:
            node.shutdown()
