"""The index of photographs in Python: built, opened, asked with an image in any form."""

import numpy as np
import pytest
from photo_folders import draw
from PIL import Image

import rrt
from rrt.errors import InputError


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "mine"
    for i in range(5):
        draw(folder / f"{i}.png", i, (200, 150), scene=i // 2)
    return rrt.PhotoIndex.build(folder, num_workers=1)


def test_an_index_lies_beside_its_photographs_and_says_what_it_is(index):
    assert index.folder.name == "mine.index" and len(index) == 5
    assert repr(index).startswith("<5 photographs of ") and rrt.PhotoIndex(index.folder).numbers == index.numbers


def test_a_photograph_of_the_index_is_left_out_and_another_image_is_not(index, tmp_path):
    found = index.search("2.png", k=2)
    assert [hit.name for hit in found][0] == "3.png" and len(found) == 2
    assert found == index.search(index.numbers["2.png"], k=2)
    copy = tmp_path / "copy.png"
    with Image.open(index.file_of(index.numbers["2.png"])) as image:
        image.save(copy)
        forms = [copy, str(copy), image, np.asarray(image), rrt.describe(copy)]
        for form in forms:
            hits = index.search(form, k=3)
            assert hits[0].name == "2.png" and hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_the_model_is_opened_once_and_let_go(index, tmp_path):
    copy = draw(tmp_path / "copy.png", 2, (200, 150), scene=1)
    with rrt.PhotoIndex(index.folder) as opened:
        first = opened.search(copy, k=2)
        describer = opened._describer
        assert opened.search(copy, k=2) == first and opened._describer is describer
    assert "_describer" not in vars(opened) and opened.search(copy, k=2) == first


def test_a_reranking_method_is_taken_by_name(index):
    assert all(hit.score is None for hit in index.search("2.png", "none", k=None))
    assert all(hit.score == int(hit.score) for hit in index.search("2.png", "geometric"))


@pytest.mark.parametrize(
    "query, said",
    [
        ("absent.png", "absent.png: neither a file nor"),
        (np.zeros((3, 3)), "query: .* is no image"),
        (None, "None: neither an image nor the number of one of"),
        (99, "99: neither an image nor the number of one of"),
        (-1, "-1: neither an image nor the number of one of"),
        (["2.png"], ".'2.png'.: neither an image nor the number of one of"),
    ],
)
def test_what_cannot_be_searched_for_is_one_line(index, query, said):
    with pytest.raises(InputError, match=said):
        index.search(query)
    with pytest.raises(InputError, match="k"):
        index.search("2.png", k=0)
