"""rrt.store.write_store: what nothing can be compared by is refused, in one line that names store and image."""

from dataclasses import replace

import numpy as np
import pytest
from builders import make_records

from rrt.errors import InputError
from rrt.store.writer import write_store


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"global_": np.zeros(16)}, "'b.jpg' has a global descriptor of zeros"),
        ({"global_": np.full(16, 1j)}, "'b.jpg' has global of type complex128; give real numbers"),
        ({"descriptors": np.ones((5, 8), np.complex64)}, "'b.jpg' has descriptors of type complex64"),
        ({"scales": np.array([1, 1, 0, 1, 1])}, "'b.jpg' has scales that are not above 0"),
        ({"scales": np.array([1, 1, 1, 1, -2.0])}, "'b.jpg' has scales that are not above 0"),
        ({"name": ""}, "'' cannot be kept as an image name"),
    ],
)
def test_a_useless_record_is_refused_and_nothing_is_written(tmp_path, changes, what):
    first, second = make_records(["a.jpg", "b.jpg"])
    with pytest.raises(InputError) as error:
        write_store(tmp_path / "delg_x.h5", [first, replace(second, **changes)])
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'delg_x.h5'}: {what}") and "; " in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_images_without_a_global_descriptor_are_written(tmp_path):
    write_store(tmp_path / "delg_x.h5", [replace(make_records(["a.jpg"])[0], global_=np.empty(0))])
