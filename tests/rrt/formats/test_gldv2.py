"""The CSV files of Google Landmarks v2: what they say, and that damaged ones are refused with file and line."""

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.formats.gldv2 import image_name, read_index_csv, read_solution, read_train_csv

A, B, C = "0123456789abcdef", "fedcba9876543210", "00000000000000aa"


def write(folder, text, name="file.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def test_a_picture_lies_in_three_folders_of_its_first_digits():
    assert image_name("train", A) == f"train/0/1/2/{A}.jpg"


@pytest.mark.parametrize(
    "text",
    [
        f'id,url,landmark_id\n{A},http://a,5\n{B},"http://a,b",5\n{C},,0\n',
        f"\ufefflandmark_id,images\r\n5,{A} {B}\r\n0,{C}\r\n",
    ],
)
def test_training_pictures_come_in_file_order_with_their_landmarks(tmp_path, text):
    images, labels = read_train_csv(write(tmp_path, text))
    assert images == [A, B, C] and labels.tolist() == [5, 5, 0] and labels.dtype == np.int64


def test_a_landmark_with_ten_thousand_pictures_is_read(tmp_path):
    many = [f"{i:016x}" for i in range(10_000)]
    assert read_train_csv(write(tmp_path, f"landmark_id,images\n3,{' '.join(many)}\n"))[0] == many


def test_an_index_lists_ids_once(tmp_path):
    assert read_index_csv(write(tmp_path, f"id\n{B}\n{A}\n{B}\n")) == [B, A]


def test_ignored_rows_are_no_queries(tmp_path):
    path = write(tmp_path, f"id,images,Usage\n{A},{B} {C} {B},Private\n{B},None,Ignored\n{C},{A},Public\n")
    assert read_solution(path) == {A: [B, C], C: [A]}
    assert read_solution(path, ("Public",)) == {C: [A]}


def test_recognition_queries_may_show_no_landmark(tmp_path):
    path = write(tmp_path, f"id,landmarks,Usage\n{A},12 7,Private\n{B},,Public\n{C},,Ignored\n")
    assert read_solution(path) == {A: [12, 7], B: []}


@pytest.mark.parametrize(
    "read, text, message",
    [
        (read_train_csv, "", ": has the columns ''; expected landmark_id,images or landmark_id,id"),
        (read_train_csv, "id,url\n", "has the columns 'id,url'"),
        (read_train_csv, "landmark_id,images\n", ": no images in it"),
        (read_train_csv, f"landmark_id,images\n5,{A}\n6,{B} {A}\n", f":3: '{A}' is on line 2 already"),
        (read_train_csv, "landmark_id,images\n5,../../etc/passwd\n", ":2: '../../etc/passwd' is no image's id"),
        (read_train_csv, f"landmark_id,images\n5.5,{A}\n", ":2: '5.5' is no landmark's number"),
        (read_train_csv, f"landmark_id,images\n{'9' * 30},{A}\n", "is no landmark's number"),
        (read_train_csv, f"landmark_id,images\n5,{A},x\n", ":2: 3 fields, the first line names 2"),
        (read_train_csv, f"landmark_id,images\n5,{A}\xff\n".encode("latin1"), "not a CSV file in UTF-8"),
        (read_index_csv, f"id\n{A[:15]}\n", f":2: '{A[:15]}' is no image's id"),
        (read_solution, f"id,images,Usage\n{A},{B},Secret\n", ":2: Usage is 'Secret'"),
        (read_solution, f"id,images,Usage\n{A},{B},Public\n{A},{C},Public\n", ":3: a second row for the query"),
        (read_solution, f"id,images,Usage\n,{B},Public\n", ":2: '' is no image's id"),
        (
            read_solution,
            f"id,images,Usage\n{A} {B},{B},Public\n",
            ":2: '0123456789abcdef fedcba9876543210' is no image's id",
        ),
        (read_solution, f"id,landmarks,Usage\n{A},x,Public\n", ":2: 'x' is no landmark's number"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, read, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="train.csv: cannot be read .No such file"):
        read_train_csv(tmp_path / "train.csv")
