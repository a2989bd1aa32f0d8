"""SavedModels that the tests of opening them share."""

import pytest
from delg_exports import LOCAL_INPUTS, LOCAL_OUTPUTS, save_toy


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """A local model of each style in folders tf1 and tf2, not to be changed."""
    folder = tmp_path_factory.mktemp("toys")
    for style in ("tf1", "tf2"):
        save_toy(style, folder / style, LOCAL_INPUTS, *LOCAL_OUTPUTS)
    return folder
