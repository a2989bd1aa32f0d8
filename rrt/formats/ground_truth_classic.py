"""The text files of the original Oxford5k and Paris6k (Philbin et al., CVPR 2007): `<landmark>_<n>_query.txt` with the
image and the box of a query, and `_good.txt`, `_ok.txt` and `_junk.txt` with its graded images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.images import SUFFIXES
from rrt.files.names import ImageNames
from rrt.formats.ground_truth import CLASSIC_GRADES, save_ground_truth

# Oxford5k's query files put this before the image's name.
_OXFORD_PREFIX = "oxc1_"


def convert_classic(texts, image_dir, target, allow_missing=False):
    """Write the ground truth of Oxford5k's or Paris6k's text files -> (number of queries, {image: file that names it}
    of those not in the folder).

    Queries are in alphabetical order of their files. An image that a file names and the folder `image_dir` lacks is
    refused, or left out with allow_missing. Raises InputError naming the file.
    """
    files = sorted(path for path in _folder(image_dir).iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{image_dir}: no images in it; name the unpacked folders of the data set")
    imlist = [path.stem for path in files]
    twice = next((row for row in range(1, len(files)) if imlist[row] == imlist[row - 1]), None)
    if twice is not None:
        raise InputError(
            f"{image_dir}: '{files[twice - 1].name}' and '{files[twice].name}' are both called '{imlist[twice]}' by the"
            " ground truth; remove one of them"
        )
    found = read_classic(texts, imlist)
    found.refuse_missing(image_dir, allow_missing)
    save_ground_truth(target, imlist, found.qimlist, found.gnd)
    return len(found.qimlist), found.missing


@dataclass(frozen=True)
class ClassicTruth:
    """The text files' queries in alphabetical order: names (`all_souls_1`), qimlist (their images, as the files name
    them) and gnd as in GroundTruth; missing: {image that the gallery lacks: file that names it}."""

    names: list
    qimlist: list
    gnd: list
    missing: dict

    def refuse_missing(self, gallery, allow_missing):
        """InputError when the gallery (named for the message) lacks an image and that is not allowed."""
        if self.missing and not allow_missing:
            name, file = next(iter(self.missing.items()))
            raise InputError(
                f"{file}: names '{name}', which is not in {gallery} ({len(self.missing)} such images); fetch"
                " them, or leave them out with --allow_missing"
            )


def read_classic(texts, gallery):
    """ClassicTruth of a folder of text files for a gallery of these names, which the files may shorten where one image
    alone is meant. Raises InputError naming the file."""
    images = ImageNames(gallery)
    query_files = sorted(_folder(texts).glob("*_query.txt"))
    if not query_files:
        raise InputError(f"{texts}: no <landmark>_<n>_query.txt in it; name the unpacked folders of the data set")
    names, qimlist, gnd, missing = [], [], [], {}
    for file in query_files:
        names.append(file.name.removesuffix("_query.txt"))
        name, box = _query(file)
        qimlist.append(name)
        entry: dict = {"bbx": box}
        for grade in CLASSIC_GRADES:
            graded = file.with_name(file.name.removesuffix("query.txt") + f"{grade}.txt")
            rows = {line: _row(images, line, graded) for line in _lines(graded)}
            missing |= {line: graded for line, row in rows.items() if row is None}
            entry[grade] = np.array([row for row in rows.values() if row is not None], dtype=np.int64)
        gnd.append(entry)
    return ClassicTruth(names, qimlist, gnd, missing)


def _row(images, name, file):
    try:
        return images.find(name)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _folder(path):
    if not Path(path).is_dir():
        raise InputError(
            f"{path}: no such folder; give the folder of the ground truth's text files and that of the images"
        )
    return Path(path)


def _query(file):
    """(image's name, [x1, y1, x2, y2]) of a `<landmark>_<n>_query.txt`."""
    lines = _lines(file)
    try:
        (line,) = lines
        name, *box = line.split()
        x1, y1, x2, y2 = map(float, box)
    except ValueError:
        raise InputError(f"{file}: expected one line 'image x1 y1 x2 y2'") from None
    return name.removeprefix(_OXFORD_PREFIX), [x1, y1, x2, y2]


def _lines(file):
    """The lines of a file that are not blank."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); every query needs its good, ok and junk files"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file; fetch it again") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
