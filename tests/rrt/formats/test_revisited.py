"""Lists and ground truth of one test set belong together, or are refused."""

import pytest

from rrt.errors import InputError
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list
from rrt.formats.revisited import load_revisited_set

GALLERY = ["jpg/a.jpg", "jpg/b.x.jpg", "jpg/sub/c.jpg"]


def write_set(folder, imlist, qimlist=("q",), easy=(0,)):
    write_image_list(folder / "test_query.txt", ["jpg/q.jpg"], [0], [(4, 4)])
    write_image_list(folder / "test_gallery.txt", GALLERY, [0, 1, 2], [(4, 4)] * 3)
    gnd = [{"bbx": [0, 0, 3, 3], "easy": list(easy), "hard": [], "junk": []}] * len(qimlist)
    save_ground_truth(folder / "gnd.pkl", list(imlist), list(qimlist), gnd)
    return load_revisited_set(folder / "test_query.txt", folder / "test_gallery.txt", folder / "gnd.pkl")


@pytest.mark.parametrize("imlist", [GALLERY, ["a", "b.x", "c"], ["a.jpg", "b.x.jpg", "c.jpg"]])
def test_ground_truth_may_name_images_by_path_file_or_stem(tmp_path, imlist):
    loaded = write_set(tmp_path, imlist)
    assert loaded.gallery.names == GALLERY and loaded.query.names == ["jpg/q.jpg"]
    assert loaded.truth.gnd[0]["easy"].tolist() == [0]


@pytest.mark.parametrize(
    "imlist, qimlist, message",
    [
        (["a", "c", "b.x"], ["q"], "imlist names 'c' where line 2 of .*test_gallery.txt has 'jpg/b.x.jpg'"),
        (["a", "b.x"], ["q"], "imlist has 2 images, .*test_gallery.txt has 3"),
        (["a", "b.x", "c"], ["q", "r"], "qimlist has 2 images"),
        (["a", "b.x", "c"], ["p"], "qimlist names 'p'"),
    ],
)
def test_ground_truth_of_another_set_is_refused(tmp_path, imlist, qimlist, message):
    with pytest.raises(InputError, match=message):
        write_set(tmp_path, imlist, qimlist)


def test_a_set_without_any_right_image_is_told_of(tmp_path, capsys):
    write_set(tmp_path, GALLERY)
    assert not capsys.readouterr().err
    write_set(tmp_path, GALLERY, easy=())
    said = f"warning: {tmp_path / 'gnd.pkl'}: no query has a right image, so that every measure is empty\n"
    assert capsys.readouterr().err == said


def test_the_published_sets_fit_together(shared_data):
    for name, gnd, num_gallery in (("oxford5k", "gnd_roxford5k.pkl", 4993), ("paris6k", "gnd_rparis6k.pkl", 6322)):
        folder = shared_data / "revisited" / name
        loaded = load_revisited_set(folder / "test_query.txt", folder / "test_gallery.txt", folder / gnd)
        assert (len(loaded.query), len(loaded.gallery)) == (70, num_gallery)
