"""Fixtures of all tests. Photographs and golden vectors that may not be copied here lie beside the repository."""

from pathlib import Path

import builders
import pytest
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The same examples on every machine and every run; no deadline, because two busy cores would miss it now and then.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


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
