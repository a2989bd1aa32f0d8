"""The CSV files of Google Landmarks v2 (docs/delg.md 3.1) and where its images lie
(`train/0/1/2/0123456789abcdef.jpg`)."""

import csv
import math
import re

import numpy as np

from rrt.errors import InputError
from rrt.formats.lists import LARGEST_LABEL

USAGES = ("Public", "Private")
# Images of the largest landmark of train_clean.csv are in one field; csv's own limit is 131,072 characters.
_LONGEST_FIELD = 1 << 24
_ID = re.compile(r"[0-9a-f]{16}")


def image_name(split, image_id):
    """Path of an image below the folder that holds `train`, `index` and `test`."""
    return "/".join((split, *image_id[:3], image_id)) + ".jpg"


def read_train_csv(path, any_ids=False):
    """train.csv (`id,url,landmark_id`) or train_clean.csv (`landmark_id,images`) -> (ids, labels int64 [N]) in file
    order.

    The label is the landmark's number. any_ids: of another data set, where an id is a file name without folder and
    ending. Raises InputError naming file and line.
    """
    ids, labels, line_of = [], [], {}
    for line, row in _rows(path, ("landmark_id", "images"), ("landmark_id", "id")):
        where = f"{path}:{line}"
        landmark = _landmark(row["landmark_id"], where)
        for image in _ids(row["images"], where, any_ids) if "images" in row else [_id(row["id"], where, any_ids)]:
            if image in line_of:
                raise InputError(f"{where}: '{image}' is on line {line_of[image]} already; an image has one landmark")
            line_of[image] = line
            ids.append(image)
            labels.append(landmark)
    if not ids:
        raise InputError(f"{path}: no images in it; fetch train.csv or train_clean.csv again")
    return ids, np.array(labels, dtype=np.int64)


def read_index_csv(path, any_ids=False):
    """index.csv or test.csv (`id`) -> ids in file order, each once; any_ids as above. Raises InputError naming file and
    line."""
    ids = {}
    for line, row in _rows(path, ("id",)):
        ids[_id(row["id"], f"{path}:{line}", any_ids)] = None
    return list(ids)


def read_solution(path, usages=USAGES):
    """retrieval_solution_v2.1.csv (`id,images,Usage`) or recognition_solution_v2.1.csv (`id,landmarks,Usage`) ->
    {query id: [ids of its index images]} or {query id: [its landmarks, possibly none]}, in file order.

    usages: Public is the validation part, Private the test part. Rows marked Ignored are no queries and are left out.
    Raises InputError naming file and line.
    """
    solution = {}
    for line, row in _rows(path, ("id", "images", "Usage"), ("id", "landmarks", "Usage")):
        where = f"{path}:{line}"
        if row["Usage"] not in (*USAGES, "Ignored"):
            raise InputError(f"{where}: Usage is {row['Usage'][:40]!r}; expected Public, Private or Ignored")
        if row["Usage"] not in usages:
            continue
        query = _id(row["id"], where)
        if query in solution:
            raise InputError(f"{where}: a second row for the query '{query}'")
        if "images" in row:
            solution[query] = list(dict.fromkeys(_ids(row["images"], where)))
        else:
            solution[query] = [_landmark(text, where) for text in row["landmarks"].split()]
    return solution


def read_retrieval(path):
    """Answers to the retrieval task, a CSV `id,images` as it is handed in -> {query id: [image ids, the best first]}.
    Raises InputError naming file and line, also for an image that is listed twice."""
    answers = {}
    for line, row in _rows(path, ("id", "images")):
        where = f"{path}:{line}"
        images = _ids(row["images"], where)
        if len(set(images)) < len(images):
            twice = next(image for image in images if images.count(image) > 1)
            raise InputError(f"{where}: the image '{twice}' is listed twice; list each once")
        _add_answer(answers, where, row["id"], images)
    return answers


def read_recognition(path):
    """Answers to the recognition task, a CSV `id,landmarks` as it is handed in, `landmark confidence` or nothing in its
    second column -> {query id: (landmark, confidence)}, -1 for none. Raises InputError naming file and line."""
    answers = {}
    for line, row in _rows(path, ("id", "landmarks")):
        where, fields = f"{path}:{line}", row["landmarks"].split()
        answer = (-1, 0.0)
        if fields:
            try:
                landmark, confidence = fields
                answer = (_landmark(landmark, where), float(confidence))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"{where}: {row['landmarks'][:40]!r} is not a landmark's number and a confidence"
                ) from None
            if not math.isfinite(answer[1]):
                raise InputError(f"{where}: the confidence {confidence} is not a finite number")
        _add_answer(answers, where, row["id"], answer)
    return answers


def is_recognition(path):
    """Whether a CSV is about recognition (a column `landmarks`). Raises InputError when it is about neither task."""
    for _, row in _rows(path, ("id", "images"), ("id", "landmarks")):
        return "landmarks" in row
    raise InputError(f"{path}: no rows in it")


def _add_answer(answers, where, query, answer):
    if _id(query, where) in answers:
        raise InputError(f"{where}: a second row for the query '{query}'")
    answers[query] = answer


def _rows(path, *headers):
    """(line number, {column: text}) of every row of a CSV that has the columns of one of `headers`."""
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if not any(set(columns) <= set(header) for columns in headers):
                raise InputError(
                    f"{path}: has the columns {','.join(header)[:80]!r}; expected "
                    + " or ".join(",".join(columns) for columns in headers)
                )
            for row in reader:
                if len(row) != len(header):
                    raise InputError(f"{path}:{reader.line_num}: {len(row)} fields, the first line names {len(header)}")
                yield reader.line_num, dict(zip(header, row))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); fetch it with the data set") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); fetch it again") from None


def _ids(text, where, any_ids=False):
    return [_id(part, where, any_ids) for part in text.split()]


def _id(text, where, any_ids=False):
    # It becomes part of a path.
    if any_ids and (not text.strip() or "/" in text or "\0" in text or text.endswith(".jpg")):
        raise InputError(f"{where}: {text[:40]!r} is no image's id (the name of its file without folder and .jpg)")
    if not any_ids and not _ID.fullmatch(text):
        raise InputError(f"{where}: {text[:40]!r} is no image's id (16 hexadecimal digits)")
    return text


def _landmark(text, where):
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST_LABEL):
        raise InputError(f"{where}: {text[:40]!r} is no landmark's number")
    return int(text)
