"""Small synthetic landmark scenes: textured buildings seen from many sides, with look-alikes, lists and ground truth.

A family of look-alikes shares palette, masonry, window kind and outline; its members differ in ornaments, sign, door
and what fills which bay, so that a descriptor of the whole image confuses them and local detail tells them apart.
Training and test landmarks, and their families, are disjoint.

    <out>/scenes_train/  jpg/, geometry/, train.txt
    <out>/scenes_test/   jpg/, geometry/, test_query.txt, test_gallery.txt, gnd_scenes_test.pkl

Easy and Hard: `views.grade`. `geometry/<landmark>.json` keeps what is known about every image
(`views.View`) and marks a landmark as finished. Every image is drawn only from the seed, its landmark and its view, so
that the result depends neither on the number of processes nor on interruptions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import guard_settings, read_json, write_bytes, write_json
from rrt.files.jobs import run_jobs
from rrt.files.machine import usable_cores
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list
from rrt.scenes.buildings import make_building
from rrt.scenes.views import View, draw_view, grade

DRAWING = 1  # raised when the same seed no longer gives the same images
_SPLITS = {"train": 0, "test": 1, "stranger": 2}


@dataclass(frozen=True)
class SceneSettings:
    """Everything that determines the images.

    num_train_landmarks: landmarks with `views` images each; num_test_landmarks: landmarks with `test_views` gallery
    images each, and, except for the last of each family, also with `queries` query images; num_distractors: further
    buildings with `distractor_views` gallery images each. family: look-alikes in a family. size: longest side in
    pixels. difficulty: 0..1, widens viewpoints, light and occlusion and the share of ornaments that look-alikes have in
    common.
    """

    num_train_landmarks: int = 60
    views: int = 10
    num_test_landmarks: int = 24
    test_views: int = 9
    queries: int = 2
    num_distractors: int = 30
    distractor_views: int = 3
    family: int = 4
    size: int = 320
    difficulty: float = 0.5
    seed: int = 0

    def check(self) -> None:
        """Raises InputError naming the first setting out of range."""
        least = {
            "num_train_landmarks": 1,
            "views": 1,
            "num_test_landmarks": 2,
            "test_views": 1,
            "queries": 1,
            "num_distractors": 0,
            "distractor_views": 1,
            "family": 2,
            "size": 64,
            "seed": 0,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"scenes: {name} is {getattr(self, name)}; give {low} or more")
        if not 0 <= self.difficulty <= 1:
            raise InputError(f"scenes: difficulty is {self.difficulty}; give a number from 0 to 1")


@dataclass(frozen=True)
class Landmark:
    """One building to draw into `folder`: its index, which also determines its family, and the kind of each of its
    images."""

    folder: Path
    split: str
    index: int
    kinds: tuple
    settings: SceneSettings

    @property
    def name(self) -> str:
        """The stem that its images and its geometry file share."""
        return f"{self.split}_{self.index:04d}"

    @property
    def geometry(self) -> Path:
        """The file that exists when all images are drawn."""
        return self.folder / "geometry" / f"{self.name}.json"

    def image(self, view: int) -> str:
        """The name of an image in the image lists."""
        return f"jpg/{self.name}_{self.kinds[view][0]}{view:02d}.jpg"


def make_scenes(out, settings: SceneSettings = SceneSettings(), num_workers: int | None = None) -> tuple[Path, Path]:
    """Makes both folders under `out` (or what is missing in them) and returns their paths.

    Raises InputError when a folder was made with other settings or cannot be written.
    """
    settings.check()
    num_workers = usable_cores() if num_workers is None else num_workers
    return (
        make_train_scenes(Path(out) / "scenes_train", settings, num_workers),
        make_test_scenes(Path(out) / "scenes_test", settings, num_workers),
    )


def make_train_scenes(folder: Path, settings: SceneSettings, num_workers: int) -> Path:
    """Images and train.txt; the label of an image is the number of its landmark."""
    used = _only(settings, "num_train_landmarks", "views")
    kinds = ("view",) * settings.views
    landmarks = [Landmark(folder, "train", i, kinds, used) for i in range(settings.num_train_landmarks)]
    views = _draw(folder, landmarks, used, num_workers)
    rows = [
        (landmark.image(v), landmark.index, view.size)
        for landmark in landmarks
        for v, view in enumerate(views[landmark.name])
    ]
    write_image_list(folder / "train.txt", *zip(*rows, strict=True))
    return folder


def make_test_scenes(folder: Path, settings: SceneSettings, num_workers: int) -> Path:
    """Images, query and gallery lists and ground truth of the test landmarks and distractors.

    The label of an image is the number of its landmark; distractors are numbered after the test landmarks.
    """
    used = _only(settings, "num_test_landmarks", "test_views", "queries", "num_distractors", "distractor_views")
    landmarks = []
    for i in range(settings.num_test_landmarks):
        queries = 0 if i % settings.family == settings.family - 1 else settings.queries
        landmarks.append(Landmark(folder, "test", i, ("query",) * queries + ("gallery",) * settings.test_views, used))
    kinds = ("gallery",) * settings.distractor_views
    landmarks += [Landmark(folder, "stranger", i, kinds, used) for i in range(settings.num_distractors)]
    views = _draw(folder, landmarks, used, num_workers)

    images: dict[str, list] = {"query": [], "gallery": []}
    for label, landmark in enumerate(landmarks):
        for v, view in enumerate(views[landmark.name]):
            images[landmark.kinds[v]].append((landmark.image(v), label, view))
    queries, gallery = images["query"], images["gallery"]
    ground_truth = [_ground_truth(view, label, gallery) for _, label, view in queries]
    query_names, query_labels, query_views = zip(*queries, strict=True)
    names, labels, gallery_views = zip(*gallery, strict=True)
    write_image_list(folder / "test_query.txt", query_names, query_labels, [_box_size(v) for v in query_views])
    write_image_list(folder / "test_gallery.txt", names, labels, [v.size for v in gallery_views])
    stems, query_stems = ([Path(name).stem for name in part] for part in (names, query_names))
    save_ground_truth(folder / "gnd_scenes_test.pkl", stems, query_stems, ground_truth)
    return folder


def _only(settings: SceneSettings, *names) -> SceneSettings:
    # Settings of the other split are set to their defaults, so that changing them does not affect this folder.
    counts = {
        "num_train_landmarks",
        "views",
        "num_test_landmarks",
        "test_views",
        "queries",
        "num_distractors",
        "distractor_views",
    }
    default = SceneSettings()
    return replace(settings, **{name: getattr(default, name) for name in counts - set(names)})


def _ground_truth(query: View, label: int, gallery) -> dict:
    entry = {"bbx": list(query.box), "easy": [], "hard": [], "junk": []}
    for position, (_, other_label, view) in enumerate(gallery):
        if other_label == label:
            entry[grade(query, view)].append(position)
    return entry


def _box_size(view: View) -> tuple[int, int]:
    x1, y1, x2, y2 = view.box
    return int(x2 - x1 + 1), int(y2 - y1 + 1)


def _draw(folder: Path, landmarks: list[Landmark], settings: SceneSettings, num_workers: int) -> dict[str, list[View]]:
    """Draws the images that are missing; returns the views of every landmark by its name."""
    guard_settings(folder / "scenes.json", {"drawing": DRAWING, **asdict(settings)})
    done = {landmark.name: views for landmark in landmarks if (views := _finished(landmark))}
    missing = [landmark for landmark in landmarks if landmark.name not in done]
    drawn = run_jobs(_draw_landmark, missing, num_workers, folder.name, "landmark")
    return done | {landmark.name: views for landmark, views in zip(missing, drawn, strict=True)}


def _finished(landmark: Landmark) -> list[View] | None:
    """The views of a landmark if all its images exist with the right number of bytes, else None."""
    records = read_json(landmark.geometry)
    if records is None:
        return None
    try:
        lengths = [record.pop("bytes") for record in records]
        views = [_view(record) for record in records]
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{landmark.geometry}: not a list of views; delete it and run again") from None
    if len(views) != len(landmark.kinds):
        return None
    files = [landmark.folder / landmark.image(v) for v in range(len(views))]
    whole = all(file.is_file() and file.stat().st_size == length for file, length in zip(files, lengths, strict=True))
    return views if whole else None


def _view(record: dict[str, Any]) -> View:
    """The View of values from JSON, which has lists instead of tuples."""
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
    return View(**values)


def _draw_landmark(landmark: Landmark) -> list[View]:
    settings, split = landmark.settings, _SPLITS[landmark.split]
    family, member = divmod(landmark.index, settings.family)
    building = make_building(settings.seed, split, family, member, shared=0.25 + 0.5 * settings.difficulty)
    views, records = [], []
    for v, kind in enumerate(landmark.kinds):
        rng = np.random.default_rng([settings.seed, split, landmark.index, v, 5])
        data, view = draw_view(building, rng, kind, settings.size, settings.difficulty)
        write_bytes(landmark.folder / landmark.image(v), data)
        views.append(view)
        records.append({**asdict(view), "bytes": len(data)})
    write_json(landmark.geometry, records)
    return views
