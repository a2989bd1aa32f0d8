"""Each test runs once, whichever worker collected it, and no worker waits while there is something that it could do."""

import re
from types import SimpleNamespace

from sharing import TESTS, Sharing, collects, worker_of


class Node:
    def __init__(self, worker, files):
        self.tests = [f"tests/{file}::test_{i}" for file in files if worker_of(file) in (None, worker) for i in (0, 1)]
        self.sent, self.shutting_down = [], False

    def send_runtest_some(self, indices):
        self.sent += indices

    def shutdown(self):
        self.shutting_down = True


FILES = [
    "scripts/test_a.py",
    "rrt/files/test_b.py",
    "rrt/network/test_c.py",
    "delg_extract/test_d.py",
    "tools/test_e.py",
]
FILES += ["delg_extract/training/test_f.py", "scripts/test_g.py", "rrt/files/test_h.py"]


def run(speeds):
    """Two workers, which end so many tests in turn -> the tests in the order in which each ended them."""
    sharing = Sharing(SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda name: None)))
    nodes, ended = [Node(worker, FILES) for worker in (0, 1)], [[], []]
    for node in nodes:
        sharing.add_node(node)
    for node in nodes:
        assert not sharing.tests_finished
        sharing.add_node_collection(node, node.tests)
        sharing.schedule()
    while not sharing.tests_finished:
        assert sharing.has_pending
        for node, done, speed in zip(nodes, ended, speeds):
            for _ in range(speed):
                if len(done) + 1 < len(node.sent) or (node.shutting_down and len(done) < len(node.sent)):
                    done.append(node.tests[node.sent[len(done)]])
                    sharing.mark_test_complete(node, node.sent[len(done) - 1])
    for node, done in zip(nodes, ended):
        done += [node.tests[index] for index in node.sent[len(done) :]]
        assert node.shutting_down
    return ended


def test_each_test_runs_once_and_the_faster_worker_does_more():
    for speeds in ((1, 1), (1, 5), (5, 1)):
        ended = run(speeds)
        assert sorted(ended[0] + ended[1]) == sorted(f"tests/{file}::test_{i}" for file in FILES for i in (0, 1))
        assert (len(ended[0]) - len(ended[1])) * (speeds[0] - speeds[1]) >= 0
        for worker, tests in enumerate(ended):
            owners = [worker_of(test.split("::")[0].removeprefix("tests/")) for test in tests]
            assert set(owners) <= {None, worker}
            assert owners == sorted(owners, key=lambda owner: owner is None)  # its own first
            assert all(tests[i].split("::")[0] == tests[i + 1].split("::")[0] for i in range(0, len(tests), 2))


def test_a_worker_that_died_names_the_test_it_was_at():
    sharing = Sharing(SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda name: None)))
    node = Node(1, FILES)
    sharing.add_node(node)
    sharing.add_node_collection(node, node.tests)
    sharing.schedule()
    sharing.mark_test_complete(node, node.sent[0])
    assert sharing.remove_node(node) == node.tests[node.sent[1]]


def test_every_file_is_collected_by_a_worker_and_what_loads_a_library_by_one():
    for path in TESTS.rglob("test_*.py"):
        workers = [worker for worker in (0, 1) if all(collects(worker, p) for p in (path, *path.parents) if p > TESTS)]
        assert workers, path
        if re.search(r"^(import torch|from reranking import)\b", path.read_text(), re.MULTILINE):
            assert workers == [0], path
        if path.is_relative_to(TESTS / "delg_extract"):
            assert workers == [1], path
