"""The synthetic scenes: same seed same bytes, ground truth that fits the images, graded by the viewpoint change."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import assert_one_line_error, run_tool
from places import ROOT

from rrt.errors import InputError
from rrt.files.atomic import guard_settings
from rrt.files.jobs import run_jobs
from rrt.formats.ground_truth import load_ground_truth
from rrt.formats.lists import read_image_list
from rrt.scenes.buildings import make_building
from rrt.scenes.camera import look_at, render, visible_faces, visible_share
from rrt.scenes.scenes import SceneSettings, make_scenes, make_test_scenes, make_train_scenes
from rrt.scenes.textures import motif
from rrt.scenes.views import View, draw_view, grade, scale_ratio, viewing_angle

TOOL = ROOT / "tools" / "make_scenes.py"
SMALL = SceneSettings(
    num_train_landmarks=1,
    views=2,
    num_test_landmarks=2,
    test_views=4,
    queries=2,
    num_distractors=1,
    distractor_views=1,
    family=2,
    size=128,
)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    make_scenes(out, SMALL, num_workers=1)
    return out


def test_two_processes_make_the_same_bytes_as_one(scenes, tmp_path):
    make_test_scenes(tmp_path, SMALL, num_workers=2)
    assert contents(tmp_path) == contents(scenes / "scenes_test")


def test_another_seed_makes_other_pictures(scenes, tmp_path):
    make_train_scenes(tmp_path, SceneSettings(num_train_landmarks=1, views=1, family=2, size=128, seed=1), 1)
    name = "jpg/train_0000_v00.jpg"
    assert (tmp_path / name).read_bytes() != (scenes / "scenes_train" / name).read_bytes()


def test_a_picture_depends_neither_on_the_number_of_landmarks_nor_of_views(scenes, tmp_path):
    make_train_scenes(tmp_path, SceneSettings(num_train_landmarks=2, views=1, family=2, size=128), 1)
    name = "jpg/train_0000_v00.jpg"
    assert (tmp_path / name).read_bytes() == (scenes / "scenes_train" / name).read_bytes()


def test_lists_and_ground_truth_name_existing_pictures_of_the_stated_size(scenes):
    test = scenes / "scenes_test"
    gallery, queries = read_image_list(test / "test_gallery.txt"), read_image_list(test / "test_query.txt")
    train = read_image_list(scenes / "scenes_train" / "train.txt")
    truth = load_ground_truth(test / "gnd_scenes_test.pkl")
    assert len(train) == 2 and len(queries) == 2 and len(gallery) == 9
    assert truth.imlist == [Path(n).stem for n in gallery.names]
    assert truth.qimlist == [Path(n).stem for n in queries.names]
    for folder, images in ((test, gallery), (scenes / "scenes_train", train)):
        for name, (width, height) in zip(images.names, images.sizes, strict=True):
            assert cv2.imread(str(folder / name)).shape == (height, width, 3)
            assert max(width, height) == 128


def test_query_boxes_lie_inside_their_pictures_and_leave_something_out(scenes):
    test = scenes / "scenes_test"
    queries = read_image_list(test / "test_query.txt")
    truth = load_ground_truth(test / "gnd_scenes_test.pkl")
    for name, entry, listed in zip(queries.names, truth.gnd, queries.sizes, strict=True):
        height, width = cv2.imread(str(test / name)).shape[:2]
        x1, y1, x2, y2 = entry["bbx"]
        assert 0 <= x1 < x2 <= width - 1 and 0 <= y1 < y2 <= height - 1
        assert (x2 - x1 + 1) * (y2 - y1 + 1) < 0.95 * width * height
        assert tuple(listed) == (int(x2 - x1 + 1), int(y2 - y1 + 1))


def test_easy_hard_and_junk_are_together_the_pictures_of_the_landmark(scenes):
    test = scenes / "scenes_test"
    gallery, queries = read_image_list(test / "test_gallery.txt"), read_image_list(test / "test_query.txt")
    for label, entry in zip(queries.labels, load_ground_truth(test / "gnd_scenes_test.pkl").gnd, strict=True):
        together = np.concatenate([entry["easy"], entry["hard"], entry["junk"]])
        assert sorted(together) == np.flatnonzero(gallery.labels == label).tolist()


def test_the_last_member_of_a_family_has_no_query(scenes):
    assert set(read_image_list(scenes / "scenes_test" / "test_query.txt").labels) == {0}


def test_a_restart_redoes_only_what_is_missing(scenes, tmp_path):
    make_test_scenes(tmp_path, SMALL, 1)
    before = contents(tmp_path)
    kept, damaged = tmp_path / "jpg/test_0000_q00.jpg", tmp_path / "jpg/test_0001_g03.jpg"
    time_kept = kept.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:100])
    (tmp_path / "test_gallery.txt").unlink()
    make_test_scenes(tmp_path, SMALL, 1)
    assert contents(tmp_path) == before
    assert kept.stat().st_mtime_ns == time_kept


def view(angle=0.0, size=50.0, share=1.0, cover=0.3):
    a = np.radians(angle)
    return View((320, 240), (10, 10, 200, 200), (10 * np.sin(a), 0.0, 10 * np.cos(a)), size, share, cover)


@pytest.mark.parametrize(
    "other, expected",
    [
        (view(), "easy"),
        (view(angle=29), "easy"),
        (view(angle=31), "hard"),
        (view(angle=-29, size=84), "easy"),
        (view(size=86), "hard"),
        (view(size=29), "hard"),
        (view(share=0.61), "easy"),
        (view(share=0.59), "hard"),
        (view(share=0.19), "junk"),
        (view(cover=0.019), "junk"),
        (view(angle=80, size=10, share=0.3), "hard"),
    ],
)
def test_grade_follows_angle_scale_and_share(other, expected):
    assert grade(view(), other) == expected


def test_viewing_angle_and_scale_ratio_are_symmetric():
    a, b = view(angle=-20, size=30), view(angle=25, size=60)
    assert viewing_angle(a, b) == pytest.approx(45) and viewing_angle(b, a) == pytest.approx(45)
    assert scale_ratio(a, b) == scale_ratio(b, a) == pytest.approx(2)


def test_look_alikes_share_outline_and_differ_in_the_front_wall():
    a, b = (make_building(0, 1, 0, member, shared=0.5) for member in (0, 1))
    assert len(a.faces) == len(b.faces)
    assert a.height == pytest.approx(b.height, rel=0.1)
    height = min(x.faces[0].levels[0].shape[0] for x in (a, b))
    fronts = [x.faces[0].levels[0][-height:, :, :3].astype(int) for x in (a, b)]
    assert np.abs(fronts[0] - fronts[1]).mean() > 10


def test_a_motif_is_the_same_every_time_and_differs_from_others():
    assert np.array_equal(motif(5, 32), motif(5, 32))
    assert len({motif(code, 32).tobytes() for code in range(200)}) == 200


def test_the_z_buffer_shows_the_nearer_wall_and_projection_agrees_with_the_rendering():
    building = make_building(0, 0, 0, 0, 0.5)
    camera = look_at((3.0, 1.0, 30.0), (0, building.height / 2, 0), 0.1, 200, (160, 120))
    faces = visible_faces(building, camera)
    colour, shown = render(faces, camera, np.array([0, 0, 1.0]), np.ones(3), np.zeros(3))
    front = building.faces[0]
    middle = front.corner + front.right * 0.5 + front.down * 0.5
    ((x, y),) = camera.project([middle])[0]
    assert shown[round(y), round(x)] and not shown[0, 0] and not shown[-1, -1]
    rows, columns = np.nonzero(shown)
    corners = np.concatenate([camera.project(face.corners)[0] for face in faces])
    assert columns.min() >= corners[:, 0].min() - 1 and rows.max() <= corners[:, 1].max() + 1
    assert visible_share(faces, camera, shown) == pytest.approx(1, abs=0.03)
    # Front drawn last or first makes no difference.
    again, _ = render(faces[::-1], camera, np.array([0, 0, 1.0]), np.ones(3), np.zeros(3))
    assert (colour != again).any(2).mean() < 0.01


def test_hiding_half_of_the_picture_halves_the_visible_share():
    building = make_building(0, 0, 2, 0, 0.5)
    camera = look_at((0.0, 1.0, 30.0), (0, building.height / 2, 0), 0.0, 200, (160, 120))
    faces = visible_faces(building, camera)
    _, shown = render(faces, camera, np.array([0, 0, 1.0]), np.ones(3), np.zeros(3))
    left = shown.copy()
    left[:, 80:] = False
    right = shown & ~left
    both = visible_share(faces, camera, left) + visible_share(faces, camera, right)
    assert both == pytest.approx(visible_share(faces, camera, shown))


@pytest.mark.parametrize("kind, difficulty", [("query", 0.0), ("gallery", 0.0), ("gallery", 1.0), ("view", 1.0)])
def test_every_difficulty_draws_a_picture(kind, difficulty):
    building = make_building(3, 0, 1, 0, 0.5)
    data, known = draw_view(building, np.random.default_rng(0), kind, 128, difficulty)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == known.size[::-1]
    assert 0 <= known.share <= 1 and 0 <= known.cover <= 1


def run(*arguments):
    return run_tool(TOOL, *arguments)


def test_other_settings_in_the_same_folder_are_refused_in_one_line(scenes):
    before = contents(scenes)
    result = run("--out", scenes, "--num_train_landmarks", 1, "--views", 2, "--family", 2, "--size", 96)
    assert_one_line_error(result, "scenes_train", "size = 128", "96")
    assert contents(scenes) == before


def test_an_unwritable_folder_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line_error(run("--out", tmp_path / "file", "--num_workers", 1), "file")


@pytest.mark.parametrize("name, value", [("views", 0), ("size", 8), ("difficulty", 1.5), ("family", 1), ("seed", -1)])
def test_settings_out_of_range_are_refused(tmp_path, name, value):
    with pytest.raises(InputError, match=name):
        make_scenes(tmp_path, SceneSettings(**{name: value}), 1)
    assert not any(tmp_path.iterdir())


def test_a_damaged_geometry_file_is_named(tmp_path):
    settings = SceneSettings(num_train_landmarks=1, views=1, size=128)
    make_train_scenes(tmp_path, settings, 1)
    geometry = tmp_path / "geometry" / "train_0000.json"
    geometry.write_text("{")
    with pytest.raises(InputError, match="train_0000.json"):
        make_train_scenes(tmp_path, settings, 1)
    geometry.write_text(json.dumps([1]))
    with pytest.raises(InputError, match="train_0000.json"):
        make_train_scenes(tmp_path, settings, 1)


def test_guard_settings_names_the_setting_that_differs(tmp_path):
    guard_settings(tmp_path / "s.json", {"a": 1, "b": [1, 2]})
    guard_settings(tmp_path / "s.json", {"a": 1, "b": (1, 2)})
    for other, words in (([1, 3], r"b\[1\] = 2, now it is 3;"), ([1], "number of b = 2, now it is 1;"), (None, "b = ")):
        with pytest.raises(InputError, match=words):
            guard_settings(tmp_path / "s.json", {"a": 1, "b": other})


def test_run_jobs_keeps_the_order_and_passes_errors_on():
    assert run_jobs(abs, [-3, 2, -1], 2, "jobs") == [3, 2, 1]
    with pytest.raises(TypeError):
        run_jobs(abs, [1, "x"], 2, "jobs")
    with pytest.raises(InputError, match="num_workers"):
        run_jobs(abs, [1], 0, "jobs")
