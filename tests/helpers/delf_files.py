"""DELF feature files, for tests."""

from pathlib import Path

from rrt.formats.delf import serialize_features


def write_features(path, features):
    """LocalFeatures as a `.delg_local` or `.delf` file."""
    Path(path).write_bytes(serialize_features(features))
