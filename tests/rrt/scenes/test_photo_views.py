"""Self-made views: same seed same bytes, a class per photograph, unreadable photographs listed and left out."""

import csv

import cv2
import numpy as np
import pytest
from commands import assert_one_line_error, run_tool
from places import ROOT

from rrt.errors import InputError
from rrt.formats.lists import read_image_list, write_image_list
from rrt.scenes.augment import (
    add_noise,
    apply_tone,
    blend,
    camera_effects,
    magnification,
    paste_patch,
    pyramid,
    smooth_noise,
    warp_antialiased,
)
from rrt.scenes.photo_views import ViewSettings, crop_homography, focus_point, make_views, read_photograph

TOOL = ROOT / "tools" / "make_views.py"
SMALL = ViewSettings(views=2, size=96)


def photograph(seed, size=(160, 120)):
    rng = np.random.default_rng(seed)
    noise = [smooth_noise(rng, size[::-1], 12) for _ in range(3)]
    return np.clip(128 + 110 * np.stack(noise, 2), 0, 255).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photos"
    names = ["a/x.jpg", "b/x.jpg", "b/with, comma.png"]
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), photograph(k))
    write_image_list(folder / "train.txt", names, [7, 7, 9], [(160, 120)] * 3)
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_photograph_is_a_class_of_its_own_or_of_its_landmark(photographs, tmp_path):
    listed = read_image_list(make_views(photographs / "train.txt", tmp_path / "out", SMALL, 1))
    assert listed.labels.tolist() == [0, 0, 1, 1, 2, 2]
    again = make_views(photographs / "train.txt", tmp_path / "out", SMALL, 1, keep_labels=True)
    assert read_image_list(again).labels.tolist() == [7, 7, 7, 7, 9, 9]
    assert listed.names[0] == "views/000/000000_x_v00.jpg" and listed.names[5] == "views/000/000002_with, comma_v01.jpg"
    for name, (width, height) in zip(listed.names, listed.sizes, strict=True):
        assert cv2.imread(str(tmp_path / "out" / name)).shape == (height, width, 3)
        assert max(width, height) == 96


def test_the_list_may_lie_apart_from_the_pictures(photographs, tmp_path):
    write_image_list(tmp_path / "part.txt", ["a/x.jpg", "b/x.jpg"], [7, 7], [(160, 120)] * 2)
    make_views(tmp_path / "part.txt", tmp_path / "apart", SMALL, image_dir=photographs, num_workers=1)
    write_image_list(photographs / "part.txt", ["a/x.jpg", "b/x.jpg"], [7, 7], [(160, 120)] * 2)
    make_views(photographs / "part.txt", tmp_path / "beside", SMALL, num_workers=1)
    assert contents(tmp_path / "apart") == contents(tmp_path / "beside")


def test_two_processes_make_the_same_bytes_as_one(photographs, tmp_path):
    make_views(photographs / "train.txt", tmp_path / "one", SMALL, 1)
    make_views(photographs / "train.txt", tmp_path / "two", SMALL, 2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_makes_other_views(photographs, tmp_path):
    make_views(photographs / "train.txt", tmp_path / "one", SMALL, 1)
    make_views(photographs / "train.txt", tmp_path / "two", ViewSettings(views=2, size=96, seed=1), 1)
    name = "views/000/000000_x_v00.jpg"
    assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "two" / name).read_bytes()


def test_a_restart_redoes_only_what_is_missing(photographs, tmp_path):
    out = tmp_path / "out"
    make_views(photographs / "train.txt", out, SMALL, 1)
    before = contents(out)
    kept = out / "views/000/000000_x_v00.jpg"
    time_kept = kept.stat().st_mtime_ns
    (out / "views/000/000000_x_v01.jpg").unlink()
    (out / "train.txt").unlink()
    make_views(photographs / "train.txt", out, SMALL, 1)
    assert contents(out) == before
    assert kept.stat().st_mtime_ns == time_kept


def test_an_unreadable_photograph_is_listed_and_the_rest_is_made(photographs, tmp_path):
    whole = (photographs / "b/x.jpg").read_bytes()
    (photographs / "b/x.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    with pytest.raises(InputError, match="1 of 3 images .* --allow_missing"):
        make_views(photographs / "train.txt", out, SMALL, 1)
    assert read_image_list(out / "train.txt").labels.tolist() == [0, 0, 2, 2]
    with open(out / "views.skipped.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason"] and rows[1][0] == "b/x.jpg" and len(rows) == 2
    assert make_views(photographs / "train.txt", out, SMALL, 1, allow_missing=True) == out / "train.txt"
    (photographs / "b/x.jpg").write_bytes(whole)
    make_views(photographs / "train.txt", out, SMALL, 1)
    assert not (out / "views.skipped.csv").exists()
    assert len(read_image_list(out / "train.txt")) == 6


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "tiny"])
def test_read_photograph_names_the_file_it_cannot_use(tmp_path, damage):
    path = tmp_path / "p.png"
    if damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"no image")
    elif damage == "tiny":
        cv2.imwrite(str(path), photograph(0)[:20])
    with pytest.raises(InputError, match="p.png"):
        read_photograph(path)


def run(*arguments):
    return run_tool(TOOL, *arguments, "--num_workers", "1")


def test_the_command_says_in_one_line_what_is_wrong(photographs, tmp_path):
    listed, out = photographs / "train.txt", tmp_path / "out"
    small = ("--size", 96, "--views", 1)
    assert run("--train_txt", listed, "--out", out, *small).returncode == 0
    more = ("--size", 96, "--views", 2)
    assert_one_line_error(run("--train_txt", listed, "--out", out, *more), "views.json", "views = 1")
    assert_one_line_error(run("--train_txt", tmp_path / "none.txt", "--out", out, *small), "none.txt")
    (tmp_path / "empty.txt").write_text("")
    assert_one_line_error(run("--train_txt", tmp_path / "empty.txt", "--out", tmp_path / "o", *small), "empty.txt")
    (tmp_path / "few.txt").write_text("a.jpg,1,2\n")
    assert_one_line_error(run("--train_txt", tmp_path / "few.txt", "--out", tmp_path / "o", *small), "few.txt:1")


def test_a_list_without_any_readable_picture_writes_no_list(tmp_path):
    write_image_list(tmp_path / "train.txt", ["gone.jpg"], [0], [(10, 10)])
    with pytest.raises(InputError, match="none of its 1 images"):
        make_views(tmp_path / "train.txt", tmp_path / "out", SMALL, 1)
    assert not (tmp_path / "out" / "train.txt").exists()


@pytest.mark.parametrize(
    "name, value", [("views", 0), ("size", 8), ("smallest_crop", 0.0), ("strength", 2.0), ("perspective", 0.5)]
)
def test_settings_out_of_range_are_refused(photographs, tmp_path, name, value):
    with pytest.raises(InputError, match=name):
        make_views(photographs / "train.txt", tmp_path / "out", ViewSettings(**{name: value}), 1)
    assert not (tmp_path / "out").exists()


def test_every_crop_shows_the_focus_and_stays_inside_without_rotation():
    settings = ViewSettings(rotation=0.0)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        source, target = (640, 480), [(320, 240), (240, 320)][seed % 2]
        focus = rng.uniform(0.2, 0.8, 2) * source
        homography = crop_homography(rng, source, focus, target, settings)
        x, y = cv2.perspectiveTransform(np.array([[focus]]), homography)[0, 0]
        assert 0 < x < target[0] and 0 < y < target[1]
        frame = np.array([[(0, 0), (target[0], 0), target, (0, target[1])]], float)
        corners = cv2.perspectiveTransform(frame, np.linalg.inv(homography))[0]
        assert corners.min() > -0.5 and (corners < np.array(source) + 0.5).all()


def test_the_focus_lies_where_the_detail_is():
    image = np.full((200, 300, 3), 128, np.uint8)
    image[120:180, 200:280] = photograph(1, (80, 60))
    for seed in range(20):
        x, y = focus_point(np.random.default_rng(seed), image)
        assert 170 < x < 240 and 95 < y < 160


def test_zero_strength_changes_nothing():
    image = photograph(3)
    assert np.array_equal(camera_effects(np.random.default_rng(0), image, 0.0), image)
    dark = apply_tone(np.random.default_rng(0), image[:, :80] // 2, 0.0)
    assert np.abs(dark.astype(int) - image[:, :80] // 2).max() <= 1
    assert np.array_equal(add_noise(np.random.default_rng(0), image, 0.0), image)


def test_blend_shows_above_where_it_covers():
    below, above = photograph(0), photograph(1)
    cover = np.zeros(below.shape[:2], np.float32)
    cover[:60] = 1
    mixed = blend(below, above, cover)
    assert np.abs(mixed[:60].astype(int) - above[:60]).max() <= 1
    assert np.abs(mixed[60:].astype(int) - below[60:]).max() <= 1


def test_paste_patch_is_cut_at_the_borders_and_leaves_the_original():
    image = np.zeros((10, 12, 3), np.uint8)
    pasted = paste_patch(image, np.full((4, 4, 3), 9, np.uint8), -2, 8)
    assert (pasted[8:, :2] == 9).all() and pasted.sum() == 9 * 12 and image.sum() == 0
    assert paste_patch(image, np.full((4, 4, 3), 9, np.uint8), 50, 50).sum() == 0


def test_magnification_of_a_scaling_is_its_factor_everywhere():
    assert magnification(np.diag([3.0, 3.0, 1.0]), 17, 4) == pytest.approx(3)
    points = np.arange(5.0)
    assert magnification(np.diag([0.5, 0.5, 1.0]), points, points) == pytest.approx(np.full(5, 0.5))


def test_shrinking_a_fine_checkerboard_gives_grey_instead_of_an_alias():
    board = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (128, 128))[..., None].repeat(3, 2)
    small = warp_antialiased(pyramid(board), np.diag([1 / 4.1, 1 / 4.1, 1.0]), (60, 60))
    assert np.abs(small[2:-2, 2:-2].astype(int) - 128).max() < 12
