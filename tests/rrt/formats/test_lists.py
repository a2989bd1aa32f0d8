"""Image lists: `path,label,width,height`, a line per image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrt.errors import InputError
from rrt.formats.lists import read_image_list, write_image_list

# Names as a disk may hold them: commas, spaces, slashes, any letters; no line break, no NUL, not blank.
NAMES = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda name: name.strip() and not name.startswith("\ufeff")
)


def write(folder, text):
    path = folder / "test_gallery.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def test_a_list_gives_names_labels_and_sizes(tmp_path):
    images = read_image_list(write(tmp_path, "jpg/a.jpg,0,1024,768\njpg/b.jpg,-1,740,1024"))
    assert images.names == ["jpg/a.jpg", "jpg/b.jpg"] and len(images) == 2
    assert images.labels.tolist() == [0, -1] and images.labels.dtype == np.int64
    assert images.sizes.tolist() == [[1024, 768], [740, 1024]] and images.sizes.dtype == np.int32
    assert images.where("jpg/b.jpg") == "line 2 of test_gallery.txt"


def test_commas_belong_to_the_name(tmp_path):
    assert read_image_list(write(tmp_path, "Rome, Italy/a,b.jpg,3,4,5\n")).names == ["Rome, Italy/a,b.jpg"]


@pytest.mark.parametrize(
    "text", ["a.jpg,1,2,3\r\nb.jpg,1,2,3\r\n", b"\xef\xbb\xbfa.jpg,1,2,3\nb.jpg,1,2,3\n", "a.jpg, 1, 2, 3\nb.jpg,1,2,3"]
)
def test_lists_of_other_editors_read_the_same(tmp_path, text):
    images = read_image_list(write(tmp_path, text))
    assert images.names == ["a.jpg", "b.jpg"] and images.sizes.tolist() == [[2, 3], [2, 3]]


@pytest.mark.parametrize(
    "text, where, what",
    [
        ("", "test_gallery.txt: ", "empty"),
        ("a.jpg,1,2,3\nb.jpg,1,2\n", "test_gallery.txt:2: ", "3 of the 4 fields"),
        ("a.jpg,1,2,3\n\nb.jpg,1,2,3\n", "test_gallery.txt:2: ", "1 of the 4 fields"),
        ("a.jpg,one,2,3\n", "test_gallery.txt:1: ", "'one' is not an integer"),
        ("a.jpg,1,2.5,3\n", "test_gallery.txt:1: ", "'2.5' is not an integer"),
        ("a.jpg,1,2,\n", "test_gallery.txt:1: ", "'' is not an integer"),
        ("a.jpg,1_0,2,3\n", "test_gallery.txt:1: ", "'1_0' is not an integer"),
        ("a.jpg,٣,2,3\n", "test_gallery.txt:1: ", "is not an integer"),
        ("a.jpg,1,\x1f2,3\n", "test_gallery.txt:1: ", "is not an integer"),
        ("a.jpg,1,0,3\n", "test_gallery.txt:1: ", "positive"),
        ("a.jpg,1,2,-3\n", "test_gallery.txt:1: ", "positive"),
        ("a.jpg,1,2,99999999999\n", "test_gallery.txt:1: ", "positive"),
        ("a.jpg," + "9" * 19 + ",2,3\n", "test_gallery.txt:1: ", "64 bits"),
        ("a.jpg," + "9" * 5000 + ",2,3\n", "test_gallery.txt:1: ", "not an integer"),
        (",1,2,3\n", "test_gallery.txt:1: ", "no file name"),
        ("a\0.jpg,1,2,3\n", "test_gallery.txt:1: ", "no file name"),
        ("a.jpg,1,2,3\nb.jpg,1,2,3\na.jpg,1,2,3\n", "test_gallery.txt:3: ", "'a.jpg' is on line 1"),
        (b"a\xff.jpg,1,2,3\n", "test_gallery.txt: ", "UTF-8"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path, text, where, what):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_image_list(path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/{where}") and what in message and "\n" not in message and len(message) < 400


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(InputError, match="test_query.txt: cannot be read .*No such file"):
        read_image_list(tmp_path / "test_query.txt")
    with pytest.raises(InputError, match="Is a directory"):
        read_image_list(tmp_path)


@pytest.mark.parametrize(
    "names, sizes, what",
    [
        (["a.jpg"], [], "do not fit"),
        (["a\nb.jpg"], [(1, 1)], "line break"),
        (["a.jpg", "a.jpg"], [(1, 1), (1, 1)], "twice"),
        (["a.jpg"], [(0, 1)], "positive"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, names, sizes, what):
    with pytest.raises(InputError, match=what):
        write_image_list(tmp_path / "list.txt", names, [0] * len(names), sizes)
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(
        st.tuples(NAMES, st.integers(-(2**63) + 1, 2**63 - 1), st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1)),
        min_size=1,
        max_size=20,
        unique_by=lambda row: row[0],
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    names, labels, sizes = [row[0] for row in rows], [row[1] for row in rows], [row[2:] for row in rows]
    write_image_list(path, names, labels, sizes)
    images = read_image_list(path)
    assert images.names == names and images.labels.tolist() == labels
    assert images.sizes.tolist() == [list(size) for size in sizes]


@given(
    st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200),
        st.lists(st.text("ab,0129-\r ", max_size=12), max_size=5).map("\n".join),
    )
)
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, text):
    path = write(tmp_path_factory.getbasetemp(), text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
    try:
        images = read_image_list(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(images) > 0 and len(images.names) == len(images.labels) == len(images.sizes)


@pytest.mark.parametrize("dataset, queries, gallery", [("oxford5k", 70, 4993), ("paris6k", 70, 6322)])
def test_the_published_lists_are_read_whole(shared_data, dataset, queries, gallery):
    folder = shared_data / "revisited" / dataset
    assert len(read_image_list(folder / "test_query.txt")) == queries
    assert len(read_image_list(folder / "test_gallery.txt")) == gallery


def test_a_byte_order_mark_of_an_editor_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "marked.txt").write_text("a.jpg,0,4,3\nb.jpg,1,4,3\n", encoding="utf-8-sig")
    assert list(read_image_list(tmp_path / "marked.txt").names) == ["a.jpg", "b.jpg"]
