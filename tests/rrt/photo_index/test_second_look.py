"""The second look at pictures where the first answer is unsure (rrt/photo_index/second_look.py)."""

import cv2
import numpy as np
import pytest
from photo_folders import FakeDescriber, build, describe, detailed, use_fakes
from PIL import Image

import rrt
from rrt.calibration import Calibration
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.image_jobs import Job
from rrt.formats.lists import write_image_list
from rrt.formats.revisited import load_revisited_set
from rrt.photo_index import second_look
from rrt.photo_index.measure import measure_answers
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.report import as_json
from rrt.photo_index.service import answer_file, answer_photograph
from rrt.scenes.flat import PHONES, photograph
from rrt.store.store import Store
from rrt.store.writer import write_store

UNSURE = Calibration("platt", 0.5, 0.0, thresholds={"maybe": 0.3, "same": 0.9, "uniformity": 2.0})
RANKER = Ranker("none", calibration=UNSURE, second_look=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six prints, a seventh that is the fifth photographed from the side, their index, and a photograph of the third,
    which looks like all of them."""
    folder = tmp_path_factory.mktemp("second")
    (folder / "photos").mkdir()
    for seed in range(6):
        Image.fromarray(detailed(seed, (400, 300))).save(folder / "photos" / f"{seed}.png")
    for name, seed in ("photos/side.jpg", 4), ("query.jpg", 2):
        picture = detailed(seed, (400, 300))[..., ::-1]
        seen = photograph(np.random.default_rng(seed), np.ascontiguousarray(picture), picture // 2 + 60, PHONES["dim"])
        (folder / name).write_bytes(seen)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    return folder


@pytest.fixture(scope="module")
def index(folder):
    return PhotoIndex(folder / "index")


def test_a_print_that_was_photographed_is_found_and_sure(folder, index):
    before = answer_file(index, folder / "query.jpg", "q", Ranker("none", calibration=UNSURE), FakeDescriber(), 7).hits
    assert {hit.group for hit in before} == {"maybe"} and {hit.shared for hit in before} == {0}
    answer = answer_file(index, folder / "query.jpg", "q", RANKER, FakeDescriber(), 7)
    first, *others = answer.hits
    assert first.name == "2.png" and first.group == "same" and first.shared >= second_look.ENOUGH
    assert first.probability == 1 - 0.02 / first.shared > 0.997
    assert others == [hit for hit in before if hit.name != "2.png"]
    assert as_json(index, answer, RANKER)["results"][0]["shared"] == first.shared


def test_fewer_results_than_are_looked_at_are_the_best_of_those(folder, index):
    (hit,) = answer_file(index, folder / "query.jpg", "q", RANKER, FakeDescriber(), 1).hits
    assert hit.name == "2.png"


def test_a_photograph_of_the_index_and_a_box_are_looked_at_too(folder, index):
    number = index.find("4.png")
    for box in (None, (40, 20, 390, 290)):
        hits = answer_photograph(index, number, RANKER, FakeDescriber(), 3, box).hits
        assert hits[0].name == "side.jpg" and hits[0].group == "same" and len(hits) == 3


def test_what_is_sure_or_has_no_answer_is_not_looked_at(folder, index, monkeypatch):
    monkeypatch.setattr(second_look, "_points", lambda *_: pytest.fail("looked"))
    sure = Calibration("platt", 0.5, 5.0, thresholds=UNSURE.thresholds)
    empty = Calibration("platt", 0.5, 0.0, thresholds=UNSURE.thresholds | {"uniformity": 1e-6})
    for ranker in (
        Ranker("none", calibration=sure, second_look=True),
        Ranker("none", calibration=empty, second_look=True),
        Ranker("none", second_look=True),
        Ranker("none", calibration=UNSURE),
    ):
        assert len(answer_file(index, folder / "query.jpg", "q", ranker, FakeDescriber(), 3).hits) == 3


def test_photographs_that_are_gone_stay_as_they_were(folder, index, monkeypatch):
    monkeypatch.setattr(PhotoIndex, "file_of", lambda *_: None)
    assert {hit.shared for hit in answer_file(index, folder / "query.jpg", "q", RANKER, FakeDescriber(), 7).hits} == {0}


def test_pictures_in_memory_are_looked_at_in_python(folder, monkeypatch):
    index = rrt.PhotoIndex(folder / "index")
    vars(index)["_describer"] = FakeDescriber()
    pixels = cv2.cvtColor(cv2.imread(str(folder / "query.jpg")), cv2.COLOR_BGR2RGB)
    for picture in (folder / "query.jpg", pixels, Image.fromarray(pixels)):
        hits = index.search(picture, RANKER, 2)
        assert [hits[0].name, hits.found, len(hits)] == ["2.png", True, 2]
    assert index.search("4.png", RANKER)[0].name == "side.jpg" and len(index.search("4.png", RANKER, None)) == 6


def test_answers_are_measured_as_users_get_them_with_and_without_an_answer(folder, index, tmp_path):
    gallery = [f"{seed}.png" for seed in range(6)]
    write_image_list(tmp_path / "g.txt", gallery, range(6), [(400, 300)] * 6)
    write_image_list(tmp_path / "q.txt", ["query.jpg"], [2], [(960, 720)])
    truth = [{"bbx": [0, 0, 960, 720], "easy": [2], "hard": [], "junk": [0]}]
    save_ground_truth(tmp_path / "gnd.pkl", [name[:-4] for name in gallery], ["query"], truth)
    images = load_revisited_set(tmp_path / "q.txt", tmp_path / "g.txt", tmp_path / "gnd.pkl")
    with Store(write_store(tmp_path / "q.h5", [describe(Job("query.jpg", folder / "query.jpg"))])) as queries:
        found = measure_answers(index, images, queries, RANKER, folder)
    shares = {"first_right": 1.0, "right_first_same": 1.0, "right_first_found": 1.0, "wrong_same": 0.0}
    assert found == {"queries": 1, "called_same": 1} | shares | {"unknown_same": 0.0, "unknown_found": 1.0}
