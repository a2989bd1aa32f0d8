"""The processes that describe images for an index: their options, and what happens when one dies or is too slow."""

import argparse
import threading
import time

import pytest
from failing_workers import describe_or_fail

from rrt.errors import InputError
from rrt.photo_index.extraction import Describer, add_extraction_options, flags_of, merged_flags


@pytest.fixture
def describer():
    describer = Describer([], work=describe_or_fail)
    yield describer
    describer.close()


def test_a_process_that_died_is_started_again(describer, tmp_path):
    first = describer.describe("/x/a", tmp_path / "o")[0]
    assert describer.describe("/x/b", tmp_path / "o")[0] == first
    (child,) = describer._children
    child.kill()
    second = describer.describe("/x/a", tmp_path / "o")[0]
    assert second != first
    assert describer.describe("/x/once", tmp_path / "once")[0] != second
    with pytest.raises(InputError, match="cannot be described: its process died; out of memory?"):
        describer.describe("/x/deadly", tmp_path / "o")
    assert describer.describe("/x/a", tmp_path / "o")[0]


def test_an_error_of_an_image_is_its_own(describer, tmp_path):
    first = describer.describe("/x/a", tmp_path / "o")[0]
    with pytest.raises(InputError, match="^is bad$"):
        describer.describe("/x/bad", tmp_path / "o")
    assert describer.describe("/x/a", tmp_path / "o")[0] == first


def test_an_image_that_takes_too_long_is_given_up_and_the_next_is_described(describer, tmp_path):
    first = describer.describe("/x/a", tmp_path / "o")[0]
    describer.seconds = 0.2
    with pytest.raises(InputError, match="cannot be described: it took longer than 0.2 seconds"):
        describer.describe("/x/slow", tmp_path / "o")
    describer.seconds = 60
    assert describer.describe("/x/a", tmp_path / "o")[0] != first


def test_the_process_has_no_pytorch(describer, tmp_path):
    import torch  # noqa: F401 - this process has

    assert describer.describe("/x/a", tmp_path / "o")[1] == 0


def test_closing_ends_an_image_that_is_being_described(describer, tmp_path):
    describer.describe("/x/a", tmp_path / "o")
    (child,) = describer._children
    errors = []

    def describe():
        try:
            describer.describe("/x/slow", tmp_path / "o")
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


def test_given_options_replace_known_ones():
    known = [["--model", "/a"], ["--max_features", "10"], ["--no-block3_strides"]]
    given = [["--block3_strides"], ["--model", "/b"]]
    assert merged_flags(known, given) == [["--max_features", "10"], *given]
    args = argparse.ArgumentParser()
    add_extraction_options(args)
    args = args.parse_args([])
    assert flags_of(args) == []
    vars(args).update(scales=[0.5, 1.0], normalize_scales=False, global_scales=[])
    assert flags_of(args) == [["--scales", "0.5", "1.0"], ["--global_scales"], ["--no-normalize_scales"]]
    args.use_local = False
    with pytest.raises(InputError, match="--no-use_local: search needs"):
        flags_of(args)
