"""A function of Python as a describer, and a store made with it."""

import doctest

import numpy as np
import pytest
from photo_folders import draw
from places import ROOT

from rrt.errors import InputError
from rrt.extraction import CallableDescriber, extract_lists
from rrt.formats.lists import write_image_list
from rrt.store.store import Store

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def mean_colours(image):
    """Cells of 32 pixels, their mean colour."""
    rows, columns = (side // 32 for side in image.shape[:2])
    return image.reshape(rows, 32, columns, 32, 3).mean((1, 3))


def test_a_map_alone_is_weighed_by_its_length_and_pooled_by_gem():
    describer = CallableDescriber(mean_colours, "colours 1", image_size=96)
    record = describer.describe(IMAGE, "a")
    cells = mean_colours(IMAGE).reshape(6, 3)
    order = np.argsort(-np.linalg.norm(cells, axis=1))
    np.testing.assert_allclose(record.attention, np.linalg.norm(cells, axis=1)[order], rtol=1e-5)
    np.testing.assert_allclose(record.descriptors * record.attention[:, None], cells[order], rtol=1e-5)
    gem = np.cbrt((cells**3).mean(0))
    np.testing.assert_allclose(record.global_, gem / np.linalg.norm(gem), rtol=1e-5)
    assert (describer.global_dim, describer.local_dim) == (3, 3)
    assert describer.identity["model"] == "callable:colours 1"


def test_global_and_attention_are_taken_as_they_are_returned():
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)

    def function(image):
        cells = mean_colours(image)
        return cells, np.ones(5), weights if cells.shape == (2, 3, 3) else np.ones(cells.shape[:2])

    record = CallableDescriber(function, "f", image_size=96).describe(IMAGE)
    assert record.attention.tolist() == [5, 4, 3, 2, 1, 0]
    np.testing.assert_allclose(record.global_, np.full(5, 5**-0.5), rtol=1e-6)
    assert record.keypoints[0].tolist() == [79.5, 47.5]


@pytest.mark.parametrize(
    "function, shapes",
    [
        (lambda image: np.zeros(4), "(4,)"),
        (lambda image: (mean_colours(image), np.zeros((2, 2))), "(2, 2)"),
        (lambda image: (mean_colours(image), np.zeros(2), np.zeros(3)), "(3,)"),
        (lambda image: (mean_colours(image), np.zeros(2), np.zeros(3), 1), "()"),
    ],
)
def test_results_of_other_shapes_are_refused(function, shapes):
    with pytest.raises(InputError, match="callable f: it returned arrays of shapes") as error:
        CallableDescriber(function, "f")
    assert shapes in str(error.value)


@pytest.mark.parametrize(
    "result", [lambda cells: cells * np.nan, lambda cells: (cells, np.full(3, np.inf))], ids=["map", "global"]
)
def test_numbers_that_are_not_finite_are_the_functions_fault(result):
    with pytest.raises(InputError, match="callable f: it returned values that are not finite"):
        CallableDescriber(lambda image: result(mean_colours(image)), "f")


def test_what_is_no_function_is_refused():
    with pytest.raises(InputError, match="callable f: 3 is no function of an image"):
        CallableDescriber(3, "f")


def test_one_list_need_not_be_a_list_of_lists(tmp_path):
    draw(tmp_path / "a.png", 0, (96, 64))
    write_image_list(tmp_path / "list.txt", ["a.png"], [0], [(96, 64)])
    describer = CallableDescriber(mean_colours, "colours 1", image_size=96)
    assert extract_lists(describer, tmp_path, str(tmp_path / "list.txt"), tmp_path / "delg_colours.h5") == []
    assert Store(tmp_path / "delg_colours.h5").names == ["a.png"]


def test_three_lines_make_a_store(tmp_path):
    names = [draw(tmp_path / f"{seed}.png", seed, (96, 64)).name for seed in range(3)]
    write_image_list(tmp_path / "list.txt", [*names, "absent.png"], [0] * 4, [(96, 64)] * 4)
    describer = CallableDescriber(mean_colours, "colours 1", image_size=96)
    skipped = extract_lists(describer, tmp_path, [tmp_path / "list.txt"], tmp_path / "delg_colours.h5")
    assert [(image.name, image.reason) for image in skipped] == [("absent.png", "no such file")]
    with Store(tmp_path / "delg_colours.h5") as store:
        assert store.names == names and store.attributes["desc_name"] == "colours"
        assert (store.global_dim, store.local_dim) == (3, 3)


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    draw(tmp_path / "a.png", 1, (96, 64))
    write_image_list(tmp_path / "list.txt", ["a.png"], [0], [(96, 64)])
    monkeypatch.chdir(tmp_path)
    given = {"image_dir": ".", "image_list": "list.txt"}
    results = doctest.testfile(str(ROOT / "docs" / "backbones.md"), module_relative=False, globs=given)
    assert (results.attempted, results.failed) == (3, 0)
