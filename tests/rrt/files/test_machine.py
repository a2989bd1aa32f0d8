"""Cores and memory that a process may use, read from folders laid out as control groups of both versions are."""

import os
import subprocess
import sys

import psutil
import pytest

from rrt.files import machine
from rrt.files.machine import free_memory, usable_cores

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Puts this process, on a machine of 8 cores with 64 GiB free, into control groups {path below the root: text}."""
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    available = psutil.virtual_memory()._replace(available=64 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)

    def write(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return write


class TestUsableCores:
    def test_without_control_groups_they_are_those_it_may_run_on(self, groups):
        assert usable_cores() == 8

    @pytest.mark.parametrize(
        "text, cores", [("max 100000", 8), ("300000 100000", 3), ("250000 100000", 3), ("1000 100000", 1), ("", 8)]
    )
    def test_a_share_of_the_time_is_a_number_of_cores(self, groups, text, cores):
        groups("0::/\n", {"cpu.max": text})
        assert usable_cores() == cores

    def test_the_share_of_a_group_above_counts_too(self, groups):
        groups("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"})
        assert usable_cores() == 2

    def test_groups_of_the_first_version_are_read(self, groups):
        files = {"cpu/x/cpu.cfs_quota_us": "150000", "cpu/x/cpu.cfs_period_us": "50000", "cpu/cpu.cfs_quota_us": "-1"}
        groups("4:memory:/\n1:cpu:/x\n", files | {"cpu/cpu.cfs_period_us": "100000"})
        assert usable_cores() == 3

    def test_in_a_container_the_name_outside_does_not_hide_the_limit(self, groups):
        groups("0::/docker/0123\n", {"cpu.max": "100000 100000"})
        assert usable_cores() == 1


class TestFreeMemory:
    def test_without_a_limit_it_is_what_the_machine_has_free(self, groups):
        groups("0::/\n", {"memory.max": "max", "memory.current": "5"})
        assert free_memory() == 64 * GIB

    def test_within_a_limit_files_read_a_while_ago_give_way(self, groups):
        stat = f"anon {GIB}\nactive_file 7\ninactive_file {2 * GIB}\n"
        groups("0::/x\n", {"x/memory.max": str(8 * GIB), "x/memory.current": str(6 * GIB), "x/memory.stat": stat})
        assert free_memory() == 4 * GIB

    def test_groups_of_the_first_version_are_read(self, groups):
        folder = "memory/process"
        groups(
            "4:memory:/process\n0::/\n",
            {
                f"{folder}/memory.limit_in_bytes": str(3 * GIB),
                f"{folder}/memory.usage_in_bytes": str(GIB),
                f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}",
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/memory.usage_in_bytes": str(GIB),
            },
        )
        assert free_memory() == 3 * GIB - GIB + GIB // 2

    def test_it_is_never_negative(self, groups):
        groups("0::/\n", {"memory.max": str(GIB), "memory.current": str(2 * GIB)})
        assert free_memory() == 0

    def test_this_machine_has_some(self):
        assert 0 < free_memory() <= psutil.virtual_memory().total and 1 <= usable_cores() <= os.cpu_count()


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, os, time\n"
        "from rrt.files.machine import end_with_parent\n"
        "def work():\n"
        "    end_with_parent()\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        worker.wait(timeout=20)


def test_a_worker_that_is_told_to_end_leaves_nothing_that_python_warns_of(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import multiprocessing, os, signal\n"
        "from rrt.files.machine import begin_worker\n"
        "from rrt.progress import bar\n"
        "def work():\n"
        "    begin_worker()\n"
        "    list(bar(range(3)))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    print(process.exitcode)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, script], env=environment, text=True, capture_output=True)
    assert (ended.stdout, ended.stderr) == ("143\n", "")
