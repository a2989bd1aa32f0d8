"""The processes that describe images by DELG models for an index: what happens when one dies or is too slow."""

import threading
import time

import pytest
from failing_workers import describe_or_fail

from rrt.errors import InputError
from rrt.photo_index.delg import DelgDescriber


@pytest.fixture
def describer():
    describer = DelgDescriber([], work=describe_or_fail)
    yield describer
    describer.close()


def test_a_process_that_died_is_started_again(describer, tmp_path):
    first = describer.describe("/x/a")[0]
    assert describer.describe("/x/b")[0] == first
    (child,) = describer._children
    child.kill()
    second = describer.describe("/x/a")[0]
    assert second != first
    assert describer.describe(tmp_path / "once")[0] != second
    with pytest.raises(InputError, match="cannot be described: its process died; out of memory?"):
        describer.describe("/x/deadly")
    assert describer.describe("/x/a")[0]


def test_an_error_of_an_image_is_its_own(describer):
    first = describer.describe("/x/a")[0]
    with pytest.raises(InputError, match="^is bad$"):
        describer.describe("/x/bad")
    assert describer.describe("/x/a")[0] == first


def test_an_image_that_takes_too_long_is_given_up_and_the_next_is_described(describer):
    first = describer.describe("/x/a")[0]
    describer.seconds = 0.2
    with pytest.raises(InputError, match="cannot be described: it took longer than 0.2 seconds"):
        describer.describe("/x/slow")
    describer.seconds = 60
    assert describer.describe("/x/a")[0] != first


def test_the_process_has_no_pytorch(describer):
    import torch  # noqa: F401 - this process has

    assert describer.describe("/x/a")[1] == 0


def test_closing_ends_an_image_that_is_being_described(describer):
    describer.describe("/x/a")
    (child,) = describer._children
    errors = []

    def describe():
        try:
            describer.describe("/x/slow")
        except InputError as error:
            errors.append(str(error))

    thread = threading.Thread(target=describe)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    describer.close()
    thread.join(10)
    assert time.monotonic() - began < 10 and not child.is_alive()
    assert errors == ["cannot be described: the program ends"]
