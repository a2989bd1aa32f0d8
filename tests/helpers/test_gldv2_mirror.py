"""The mirror of Google Landmarks v2 that the walk from download to export uses."""

import sys

import cv2
import gldv2_mirror
import numpy as np
from gldv2_mirror import drawn_images, images_in, make_mirror, member_name

from rrt.formats.gldv2 import read_index_csv, read_solution, read_train_csv


def test_its_tables_are_those_of_the_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["gldv2_mirror.py", str(tmp_path), "--classes", "3", "--pictures", "2", "--size", "64"]
    )
    gldv2_mirror.main()
    assert "6 train images in 2 tar files, 6 index images in 1 tar files, 3 test images" in capsys.readouterr().out
    ids, labels = read_train_csv(tmp_path / "metadata/train.csv")
    assert read_train_csv(tmp_path / "metadata/train_clean.csv")[1].tolist() == sorted(labels) == [5, 5, 22, 22, 39, 39]
    assert {member_name(i) for i in ids} == {
        name for number in range(2) for name in images_in((tmp_path / f"train/images_00{number}.tar").read_bytes())
    }
    index, queries = read_index_csv(tmp_path / "metadata/index.csv"), read_index_csv(tmp_path / "metadata/test.csv")
    answers = read_solution(tmp_path / "ground_truth/retrieval_solution_v2.1.csv")
    assert list(answers) == queries and sorted(sum(answers.values(), [])) == sorted(index)
    assert list(read_solution(tmp_path / "ground_truth/recognition_solution_v2.1.csv").values()) == [[5], [22], [39]]


def test_a_test_image_of_no_landmark_is_no_query(tmp_path):
    some = [("0" * 15 + str(i), mark, np.zeros((8, 8, 3), np.uint8)) for i, mark in enumerate((7, 7, None))]
    files = make_mirror(tmp_path, some[:2], some, some[1:], clean=["0" * 16])
    assert list(read_solution(tmp_path / "ground_truth/retrieval_solution_v2.1.csv")) == [some[1][0]]
    assert read_solution(tmp_path / "ground_truth/recognition_solution_v2.1.csv") == {some[1][0]: [7], some[2][0]: []}
    assert files["metadata/train_clean.csv"] == b"landmark_id,images\n7,0000000000000000\n"
    assert files["metadata/index_image_to_landmark.csv"].split() == [
        b"id,landmark_id",
        b"0000000000000000,1000007",
        b"0000000000000001,1000007",
    ]


def test_images_of_a_landmark_match_and_differ():
    drawn = [
        (landmark, draw())
        for split in ("train", "test")
        for _, landmark, draw in drawn_images(split, range(3), 2, size=128)
    ]
    assert len({content for _, content in drawn}) == len(drawn)
    assert drawn_images("test", [2], 1, 128)[0][2]() == drawn[-4][1]
    sift, matcher = cv2.SIFT_create(), cv2.BFMatcher()
    features = []
    for _, content in drawn:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert max(image.shape) == 128
        features.append(sift.detectAndCompute(image, None)[1])
    for i, (landmark, _) in enumerate(drawn):
        matches = dict.fromkeys(range(3), 0)
        for j in set(range(len(drawn))) - {i}:
            found = matcher.knnMatch(features[i], features[j], 2)
            matches[drawn[j][0]] = max(
                matches[drawn[j][0]], sum(one.distance < 0.75 * two.distance for one, two in found)
            )
        assert matches.pop(landmark) > 2 * max(matches.values())
