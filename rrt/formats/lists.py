"""Image lists: one line `relative/path.jpg,label,width,height` per image (docs/protocol.md 3).

For queries width and height are those of the query box. Commas in paths are legal: the last three fields are split off
from the right.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import atomic_path

LARGEST_SIDE = np.iinfo(np.int32).max
LARGEST_LABEL = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ImageList:
    """`names[i]` is on line i + 1 of `path`; `labels` int64 [N]; `sizes` int32 [N, 2] = width, height in pixels."""

    path: Path
    names: list[str]
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self):
        return len(self.names)

    def where(self, name):
        """`line 12 of test_gallery.txt`, for messages about one of the images."""
        return f"line {self.names.index(name) + 1} of {self.path.name}"


def read_image_list(path):
    """Read an image list. Raises InputError naming file and line for anything but `path,label,width,height`."""
    path = Path(path)
    lines = _read_lines(path)
    names, numbers, line_of = [], [], {}
    for number, line in enumerate(lines, start=1):
        name, *fields = _parse_line(line, f"{path}:{number}")
        if name in line_of:
            raise InputError(f"{path}:{number}: '{name}' is on line {line_of[name]} already; keep one line per image")
        line_of[name] = number
        names.append(name)
        numbers.append(fields)
    columns = np.array(numbers, dtype=np.int64)
    return ImageList(path, names, columns[:, 0].copy(), columns[:, 1:].astype(np.int32))


def read_paths(path) -> list[str]:
    """The names in an image list, or in a text file that has nothing but a path a line, in order and each once.

    Raises InputError for a file that cannot be read or is empty.
    """
    path = Path(path)
    names = []
    for line in _read_lines(path):
        try:
            name = _parse_line(line, path)[0]
        except InputError:
            name = line.strip()
        names += [name] if name else []
    return list(dict.fromkeys(names))


def unlistable(name: str) -> str | None:
    """Why an image of this name cannot be in a list; None when it can."""
    if "\n" in name or "\r" in name:
        return "contains a line break"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is no UTF-8 text"
    return None


def write_image_list(path, names, labels, sizes):
    """Write an image list, whole or not at all; `labels` [N] integers, `sizes` [N, 2] = width, height in pixels.

    Raises InputError for what read_image_list() would not read back.
    """
    if not len(names) == len(labels) == len(sizes):
        raise InputError(f"{path}: {len(names)} names, {len(labels)} labels and {len(sizes)} sizes do not fit together")
    lines = [
        f"{name},{int(label)},{int(width)},{int(height)}" for name, label, (width, height) in zip(names, labels, sizes)
    ]
    seen = set()
    for name, line in zip(names, lines):
        problem = "is in the list twice" if name in seen else unlistable(name)
        if problem:
            raise InputError(f"{path}: {name!r} {problem}; rename or leave out the image")
        seen.add(name)
        _parse_line(line, f"{path}: {name!r}")
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write("".join(line + "\n" for line in lines))


def _read_lines(path):
    try:
        # newline="": a name may hold a lone carriage return or a Unicode line separator; only \n ends a line here.
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start}); save the image list as UTF-8") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected an image list with lines 'path,label,width,height'"
        ) from None
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{path}: the image list is empty; expected lines 'path,label,width,height'")
    return [line.removesuffix("\r") for line in lines]


def _parse_line(line, where):
    fields = line.rsplit(",", 3)
    if len(fields) != 4:
        raise InputError(f"{where}: {len(fields)} of the 4 fields of 'path,label,width,height' in {_shown(line)}")
    name, label, width, height = fields
    if not name.strip() or "\0" in name or "\r" in name:
        raise InputError(f"{where}: {_shown(name)} is no file name; expected 'path,label,width,height'")
    label, width, height = (_integer(text, where) for text in (label, width, height))
    if abs(label) > LARGEST_LABEL:
        raise InputError(f"{where}: label {label} does not fit into 64 bits")
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise InputError(f"{where}: width {width} and height {height} must be positive pixel counts")
    return name, label, width, height


def _integer(text, where):
    # Not all that strip() takes for space, int() takes for space.
    number = text.strip(" \t")
    digits = number.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise InputError(f"{where}: {_shown(text)} is not an integer; expected 'path,label,width,height'")
    return int(number)


def _shown(text):
    return repr(text if len(text) <= 80 else text[:77] + "...")
