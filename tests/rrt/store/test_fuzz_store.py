"""Damaged stores: each of many mutated files reads or gives the library's own error, in bounded time and memory."""

import json
import subprocess
import sys
import textwrap

import builders
import pytest
from commands import ROOT

from rrt.store.writer import write_store

MUTATIONS = 200
LAYOUTS = {"mapped": {}, "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf", "local_dtype": "int8"}}
# In a process of its own, because HDF5 could hang or crash where Python cannot catch it.
READER = """
    import collections, json, resource, sys, time
    sys.path[:0] = {folders!r}
    from mutations import mutations
    from rrt.errors import InputError
    from rrt.store.store import Store

    path, seed = sys.argv[1], int(sys.argv[2])
    data = open(path, "rb").read()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, slowest = collections.Counter(), 0
    for damaged in mutations(data, {count}, seed):
        with open(path, "wb") as file:
            file.write(damaged)
        start = time.process_time()
        try:
            with Store(path) as store:
                store.indices(store.names)
                store.global_descriptors.max(initial=0)
                store.read_packed(range(len(store)))
                for i in range(len(store)):
                    store.read(i)
            found["read"] += 1
        except InputError as error:
            found["refused" if str(error).startswith(path) and "\\n" not in str(error) else repr(error)] += 1
        slowest = max(slowest, time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({{"found": found, "slowest": slowest, "grown_kib": grown}}))
"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_store_reads_or_is_refused(tmp_path, layout):
    records = builders.make_records([f"jpg/東京 {i}.jpg" for i in range(6)], num_local=[3, 0, 9, 1, 20, 2])
    path = write_store(tmp_path / "delg_x.h5", records, **LAYOUTS[layout])
    code = textwrap.dedent(READER.format(folders=[str(ROOT / "tests/helpers"), str(ROOT)], count=MUTATIONS))
    finished = subprocess.run(
        [sys.executable, "-c", code, str(path), str(len(layout))], text=True, capture_output=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    result = json.loads(finished.stdout)
    assert result["found"].keys() == {"read", "refused"} and sum(result["found"].values()) == MUTATIONS
    assert result["slowest"] < 5 and result["grown_kib"] < 200_000
