"""Tests of delg_extract are collected where TensorFlow is installed."""

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("tensorflow") else ["*"]


@pytest.fixture
def tiny(monkeypatch):
    """The backbone `small` has half the layers and few channels (tiny_delg.py), where what a run does is the same."""
    from tiny_delg import TINY

    from delg_extract.network.model import BACKBONES

    monkeypatch.setitem(BACKBONES, "small", TINY)
