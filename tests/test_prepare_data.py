"""Image lists of folders of photographs."""
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rrt.errors import InputError
from rrt.lists import read_image_list
from tools.prepare_data import list_folder


@pytest.fixture
def photos(tmp_path):
    for landmark, size in (("bridge", (40, 30)), ("arch", (30, 50))):
        (tmp_path / "photos" / landmark).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((*size[::-1], 3), i, np.uint8)).save(tmp_path / "photos" / landmark / f"{i} é,.jpg")
    return tmp_path / "photos"


def test_labels_follow_the_alphabet_and_sizes_are_width_then_height(photos, tmp_path):
    assert list_folder(photos, tmp_path / "train.txt") == (4, {})
    images = read_image_list(tmp_path / "train.txt")
    assert images.names == ["arch/0 é,.jpg", "arch/1 é,.jpg", "bridge/0 é,.jpg", "bridge/1 é,.jpg"]
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.sizes[0].tolist() == [30, 50]


def test_an_unreadable_picture_is_named_and_the_rest_is_listed(photos, tmp_path):
    (photos / "arch" / "broken.jpg").write_bytes(b"not a picture")
    command = [sys.executable, "tools/prepare_data.py", "folder", str(photos), str(tmp_path / "train.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "broken.jpg" in done.stderr and done.stderr.count("\n") == 1
    assert len(read_image_list(tmp_path / "train.txt").names) == 4
    assert subprocess.run([*command, "--allow_missing"]).returncode == 0


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="no pictures in sub-folders"):
        list_folder(tmp_path, tmp_path / "train.txt")
    with pytest.raises(InputError, match="no such folder"):
        list_folder(tmp_path / "missing", tmp_path / "train.txt")
