"""rrt/files/cluster.py: what is said where there is no Ray cluster (what one does: tests/tools/test_ray.py)."""

import importlib

import pytest

from rrt.errors import InputError
from rrt.files.cluster import run_on_ray


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_one_line(address):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=f"ray_address {address}: no Ray cluster answers there .*'ray start --head'"):
        run_on_ray(print, None, [0], address, print, print)


def test_without_ray_the_extra_is_named(monkeypatch):
    def lacking(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", lacking)
    with pytest.raises(InputError, match=r"Ray is not installed; pip install 'rrt\[cluster\]'"):
        run_on_ray(print, None, [0], "local", print, print)
