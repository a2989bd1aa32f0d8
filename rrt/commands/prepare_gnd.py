"""Ground truth from one form into another: Revisited files as .pkl, .mat (positions from 1) or .json, and the text
files of the original Oxford5k and Paris6k.

    python tools/prepare_gnd.py convert gnd_roxford5k.mat data/oxford5k/gnd_roxford5k.pkl
    python tools/prepare_gnd.py classic gt_files_170407 data/oxford5k_classic/jpg data/oxford5k_classic/gnd_oxford5k.pkl

The suffix of a file says its form. `classic` reads `<landmark>_<n>_query.txt` (image and box of a query),
`_good.txt`, `_ok.txt` and `_junk.txt`; the gallery is all images of the folder, in alphabetical order. What every
tool then measures is the classic average precision: good and ok are right, junk is left out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.command_line.parser import CommandParser
from rrt.commands.prepare_data import SUFFIXES
from rrt.errors import InputError
from rrt.formats.ground_truth import CLASSIC_GRADES, load_ground_truth, save_ground_truth

# Oxford5k's query files put this before the image's name.
_OXFORD_PREFIX = "oxc1_"


def convert(source, target):
    """Write the ground truth of `source` to `target` in the form its suffix names -> number of queries.

    Raises InputError for ground truth that does not fit together, and writes nothing then.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise InputError(f"{target}: is the source itself; name another file")
    truth = load_ground_truth(source)
    save_ground_truth(target, truth.imlist, truth.qimlist, truth.gnd)
    return len(truth.qimlist)


def convert_classic(texts, pictures, target, allow_missing=False):
    """Write the ground truth of Oxford5k's or Paris6k's text files -> (number of queries, {image: file that names it}
    of those not in the folder).

    Queries stand in alphabetical order of their files. An image that a file names and the folder `pictures` lacks is
    refused, or left out with allow_missing. Raises InputError naming the file.
    """
    imlist = sorted(path.stem for path in _folder(pictures).iterdir() if path.suffix.lower() in SUFFIXES)
    if not imlist:
        raise InputError(f"{pictures}: no images in it; name the unpacked folders of the data set")
    found = read_classic(texts, imlist)
    found.refuse_missing(pictures, allow_missing)
    save_ground_truth(target, imlist, found.qimlist, found.gnd)
    return len(found.qimlist), found.missing


@dataclass(frozen=True)
class ClassicTruth:
    """The text files' queries in alphabetical order: names (`all_souls_1`), qimlist (their images' stems) and gnd as
    in GroundTruth; missing: {stem that the gallery lacks: file that names it}."""

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


def read_classic(texts, stems):
    """ClassicTruth of a folder of text files for the gallery of these file stems. Raises InputError naming the file."""
    position = {stem: row for row, stem in enumerate(stems)}
    query_files = sorted(_folder(texts).glob("*_query.txt"))
    if not query_files:
        raise InputError(f"{texts}: no <landmark>_<n>_query.txt in it; name the unpacked folders of the data set")
    names, qimlist, gnd, missing = [], [], [], {}
    for file in query_files:
        names.append(file.name.removesuffix("_query.txt"))
        name, box = _query(file)
        qimlist.append(name)
        entry = {"bbx": box}
        for grade in CLASSIC_GRADES:
            graded = file.with_name(file.name.removesuffix("query.txt") + f"{grade}.txt")
            lines = _lines(graded)
            missing |= {line: graded for line in lines if line not in position}
            entry[grade] = np.array([position[line] for line in lines if line in position], dtype=np.int64)
        gnd.append(entry)
    return ClassicTruth(names, qimlist, gnd, missing)


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
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); every query needs its good, ok and junk files"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file; fetch it again") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def main():
    parser = CommandParser(__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    mode = modes.add_parser("convert", help="from one of .pkl, .mat and .json into another")
    mode.add_argument("source", help="the file to read")
    mode.add_argument("target", help="the file to write")
    mode = modes.add_parser("classic", help="from the text files of Oxford5k or Paris6k")
    mode.add_argument("texts", help="folder with <landmark>_<n>_query.txt and the others")
    mode.add_argument("pictures", help="folder with the images of the gallery")
    mode.add_argument("target", help="the file to write")
    mode.add_argument(
        "--allow_missing", action="store_true", help="leave out images that the files name and the folder lacks"
    )
    args = parser.parse_args()
    if args.mode == "convert":
        print(f"wrote {args.target}: {convert(args.source, args.target)} queries")
        return
    queries, missing = convert_classic(args.texts, args.pictures, args.target, args.allow_missing)
    print(f"wrote {args.target}: {queries} queries")
    for name, file in missing.items():
        print(f"left out {name}, which {file.name} names")
