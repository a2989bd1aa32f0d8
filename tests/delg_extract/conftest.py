"""Tests of delg_extract are collected where TensorFlow is installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("tensorflow") else ["*"]
