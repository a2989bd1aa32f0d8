"""Image lists made from a folder, from a ground truth, or from the files of Google Landmarks v2.

Sizes are read from the headers of the images without decoding them.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import write_csv
from rrt.files.images import NO_HEIF, SUFFIXES, Unreadable, size_of
from rrt.files.jobs import run_jobs
from rrt.files.machine import usable_cores
from rrt.files.names import existing, is_excluded, is_left_out, shown
from rrt.formats.gldv2 import USAGES, image_name, read_index_csv, read_solution, read_train_csv
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.lists import read_paths, unlistable, write_image_list

# Headers are read within a fraction of a millisecond: fewer are not worth another process.
_NAMES_PER_JOB = 2000


@dataclass
class Written:
    """What a run wrote: `counts` {file: images in it}, `skipped` {image: reason}, `notes` for the user."""

    counts: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def image_size(path):
    """(width, height) in pixels from the header, or the reason (a string) why there is none."""
    try:
        return size_of(path)
    except Unreadable as reason:
        return str(reason)


def image_sizes(root, names, num_workers=None):
    """Sizes of root/name for all names -> (rows of those that have one [K], sizes int64 [K, 2], {name: reason} of the
    rest).

    num_workers: processes, None: one a core. Raises InputError when not one of the images can be read.
    """
    jobs = [(str(root), names[start : start + _NAMES_PER_JOB]) for start in range(0, len(names), _NAMES_PER_JOB)]
    blocks = run_jobs(
        _sizes_of, jobs, usable_cores() if num_workers is None else num_workers, "sizes", f"block of {_NAMES_PER_JOB}"
    )
    sizes = [size for block in blocks for size in block]
    skipped = {name: size for name, size in zip(names, sizes) if isinstance(size, str)}
    if len(skipped) == len(names):
        raise InputError(f"{root}: none of {len(names)} images can be read, first {names[0]}: {sizes[0]}")
    rows = [row for row, size in enumerate(sizes) if not isinstance(size, str)]
    return np.array(rows), np.array([sizes[row] for row in rows]), skipped


def _sizes_of(job):
    root, names = job
    return [image_size(os.path.join(root, name)) for name in names]


def list_folder(photos, output, num_workers=None, exclude=()):
    """List the images of every sub-folder of `photos`; labels count the sub-folders in alphabetical order -> Written.

    exclude: patterns of files and folders to leave out (rrt.files.names.is_excluded); hidden ones and those of systems
    are left out in any case. Raises InputError when there is no sub-folder with a readable image.
    """
    photos = Path(photos)
    if not photos.is_dir():
        raise InputError(f"{photos}: no such folder; give a folder with a sub-folder of images per landmark")
    beside, folders, left = [], [], Counter()
    for path in sorted(photos.iterdir()):
        kept = not is_left_out(path.name) and not is_excluded(path.name, exclude)
        if kept and path.is_dir():
            folders.append(path)
        elif kept and path.suffix.lower() in SUFFIXES:
            beside.append(path.name)
    files = [
        (name, label) for label, folder in enumerate(folders) for name in _images_below(folder, photos, exclude, left)
    ]
    if not files:
        raise InputError(
            f"{photos}: no images in sub-folders; put the images of each landmark into a sub-folder of its own"
        )
    unlisted = {name: f"its name {problem}; rename it" for name, _ in files if (problem := unlistable(name))}
    files = [(name, label) for name, label in files if name not in unlisted]
    if not files:
        name, reason = next(iter(unlisted.items()))
        raise InputError(f"{photos}: no image can be listed, first {shown(name)}: {reason}")
    names, labels = [name for name, _ in files], np.array([label for _, label in files])
    rows, sizes, skipped = image_sizes(photos, names, num_workers)
    written = Written(notes=_left_notes(beside, left))
    _write_list(written, output, names, labels, rows, sizes, unlisted | skipped)
    return written


def list_photographs(source, output, num_workers=None, exclude=()):
    """List photographs that nobody has labelled -> Written; the label of each is its own number in the list.

    source: a folder, all images below it are listed; or a text file with a path a line, relative to the file's folder
    (of an image list its names are taken). exclude: as of ``list_folder``. Raises InputError when none is readable.
    """
    source, left, notes = Path(source), Counter(), []
    if source.is_dir():
        root, names = source, _images_below(source, source, exclude, left)
        notes = _left_notes([], left)
    else:
        root, names = source.parent, read_paths(source)
    unlisted = {name: f"its name {problem}; rename it" for name in names if (problem := unlistable(name))}
    names = [name for name in names if name not in unlisted]
    if not names:
        raise InputError(f"{source}: no photographs; give a folder with images below it, or a file with a path a line")
    rows, sizes, skipped = image_sizes(root, names, num_workers)
    written = Written(notes=notes)
    _write_list(
        written, output, names, np.cumsum(np.isin(np.arange(len(names)), rows)) - 1, rows, sizes, unlisted | skipped
    )
    return written


def _images_below(folder: Path, top: Path, exclude, left: Counter) -> list[str]:
    """Names below `top` of the images of a folder; what is left out is counted by its kind."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(top).as_posix()
        if any(map(is_left_out, name.split("/"))) or not path.is_file():
            continue
        if is_excluded(name, exclude):
            left["--exclude"] += 1
        elif path.suffix.lower() in SUFFIXES:
            names.append(name)
        else:
            left[path.suffix.lower() or "no suffix"] += 1
    return names


def _left_notes(beside: list[str], left: Counter) -> list[str]:
    notes = []
    if excluded := left.pop("--exclude", 0):
        notes.append(f"left out {excluded} files by --exclude")
    if left[".heic"] + left[".heif"]:
        notes.append(NO_HEIF)
    if left:
        kinds = ", ".join(
            f"{count} {suffix}" for suffix, count in sorted(left.items(), key=lambda item: (-item[1], item))
        )
        notes.append(f"left out {left.total()} files of kinds that are not read: {kinds}")
    if beside:
        more = f" and {len(beside) - 3} more" if len(beside) > 3 else ""
        names = ", ".join(map(shown, beside[:3])) + more
        notes.append(f"left out {len(beside)} images beside the sub-folders, which have no landmark: {names}")
    return notes


def list_revisited(image_dir, ground_truth, output, subfolder="jpg", query_size="published", num_workers=None):
    """Write output/test_query.txt and test_gallery.txt for a ground truth, with the published lines -> Written.

    The images are image_dir/subfolder/<name>.jpg. Labels number the names without their final digits in alphabetical
    order (`all_souls_000013` -> `all_souls` -> 0). query_size, what a query's width and height are: `box`
    (docs/protocol.md 3: those of its box), `picture`, or `published`: the published list of RParis6k has the whole
    images' sizes, that of ROxford5k those of the boxes. Raises InputError, and writes nothing, when an image cannot be
    read: positions in the ground truth are lines of these lists.
    """
    truth = load_ground_truth(ground_truth)
    stems = [Path(name).stem for name in truth.qimlist + truth.imlist]
    landmarks = [re.sub(r"_?\d+$", "", stem) for stem in stems]
    labels = np.unique(landmarks, return_inverse=True)[1]
    names = [_find_image(image_dir, subfolder, name) for name in truth.qimlist + truth.imlist]
    if query_size == "published":
        query_size = "picture" if all(name.startswith("paris_") for name in truth.qimlist) else "box"
    num_queries = len(truth.qimlist)
    measured = slice(num_queries if query_size == "box" else 0, None)
    sizes, skipped = image_sizes(image_dir, names[measured], num_workers)[1:]
    if skipped:
        name, reason = next(iter(skipped.items()))
        raise InputError(
            f"{image_dir}: {len(skipped)} of {len(names)} images of {ground_truth} cannot be read, first {name}:"
            f" {reason}; fetch them, all are needed"
        )
    if query_size == "box":
        sizes = np.concatenate([[_box_size(entry["bbx"]) for entry in truth.gnd], sizes])
    written = Written()
    for file, part in (("test_query.txt", slice(num_queries)), ("test_gallery.txt", slice(num_queries, None))):
        write_image_list(Path(output) / file, names[part], labels[part], sizes[part])
        written.counts[Path(output) / file] = len(names[part])
    return written


def _find_image(image_dir, subfolder, name):
    name = name if "/" in name or not subfolder else f"{subfolder}/{name}"
    if Path(name).suffix.lower() in SUFFIXES:
        return name
    return next(
        (name + suffix for suffix in SUFFIXES if existing(Path(image_dir) / (name + suffix)).exists()),
        name + SUFFIXES[0],
    )


def _box_size(box):
    x1, y1, x2, y2 = box
    return int(x2 - x1 + 1), int(y2 - y1 + 1)


def list_gldv2_train(images, train_csv, output, min_pictures=1, max_pictures=None, seed=0, num_workers=None):
    """List training images of Google Landmarks v2, labelled with their landmark's number -> Written.

    images: the folder that holds `train`. train_csv: train.csv or train_clean.csv, whose order is kept. min_pictures:
    landmarks with fewer readable images are left out. max_pictures: of landmarks with more, so many drawn by `seed`.
    Raises InputError.
    """
    if min_pictures < 1 or (max_pictures is not None and max_pictures < min_pictures):
        raise InputError(
            f"min_pictures {min_pictures}, max_pictures {max_pictures}: expected 1 <= min_pictures <= max_pictures"
        )
    ids, labels = read_train_csv(train_csv)
    # Landmarks that are too small as listed cannot pass: their images need no look.
    possible = np.flatnonzero(_counts(labels) >= min_pictures)
    if not len(possible):
        raise InputError(f"{train_csv}: no landmark has {min_pictures} images; give a smaller min_pictures")
    names, labels = [image_name("train", ids[row]) for row in possible], labels[possible]
    rows, sizes, skipped = image_sizes(images, names, num_workers)
    chosen = _choose(labels[rows], min_pictures, max_pictures, seed)
    if not len(chosen):
        raise InputError(
            f"{images}: no landmark has {min_pictures} readable images; {len(skipped)} are missing, fetch more of"
            " the data set or give a smaller min_pictures"
        )
    written = Written()
    _write_list(written, output, names, labels, rows[chosen], sizes[chosen], skipped)
    written.notes.append(
        f"{len(np.unique(labels[rows[chosen]]))} landmarks; {len(ids) - len(names)} images listed for landmarks"
        f" with fewer than {min_pictures}, {len(rows) - len(chosen)} readable ones left out by the limits"
    )
    return written


def _counts(labels):
    """For every row how many rows have its label [N]."""
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[position]


def _choose(labels, min_pictures, max_pictures, seed):
    """Rows [K], rising, of the labels with at least min_pictures rows, and at most max_pictures drawn of each."""
    rows = np.flatnonzero(_counts(labels) >= min_pictures)
    if max_pictures is None:
        return rows
    shuffled = np.random.default_rng(seed).permutation(rows)
    shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[shuffled], prepend=-1))
    position = np.arange(len(shuffled)) - np.repeat(starts, np.diff(np.append(starts, len(shuffled))))
    return np.sort(shuffled[position < max_pictures])


def list_gldv2_test(images, index_csv, solution_csv, output, usages=USAGES, num_workers=None):
    """Write test_query.txt, test_gallery.txt and gnd_gldv2.pkl of the Google Landmarks v2 retrieval task -> Written.

    images: the folder that holds `test` and `index`. solution_csv: retrieval_solution_v2.1.csv; its rows of `usages`
    are the queries, in its order. The right index images of a query are graded easy, its box is the whole image,
    labels are -1 (not known). Images that cannot be read are left out everywhere. Raises InputError.
    """
    solution, index = read_solution(solution_csv, usages), read_index_csv(index_csv)
    if not solution:
        raise InputError(f"{solution_csv}: no row with the Usage {' or '.join(usages)}; fetch it again")
    missing = {right for answers in solution.values() for right in answers}.difference(index)
    if missing:
        raise InputError(
            f"{solution_csv}: {len(missing)} right images are not in {index_csv}, first '{min(missing)}'; take the"
            " two files of one release"
        )
    output, written, queries = Path(output), Written(), list(solution)
    names = {
        "test": [image_name("test", image) for image in queries],
        "index": [image_name("index", image) for image in index],
    }
    found = {split: image_sizes(images, names[split], num_workers) for split in names}
    for split, file in (("test", "test_query.txt"), ("index", "test_gallery.txt")):
        _write_list(written, output / file, names[split], np.full(len(names[split]), -1), *found[split])
    queries, index = [queries[row] for row in found["test"][0]], [index[row] for row in found["index"][0]]
    position = {image: row for row, image in enumerate(index)}
    gnd = [
        {
            "bbx": [0.0, 0.0, float(width), float(height)],
            "hard": [],
            "junk": [],
            "easy": [position[right] for right in solution[query] if right in position],
        }
        for query, (width, height) in zip(queries, found["test"][1])
    ]
    save_ground_truth(output / "gnd_gldv2.pkl", index, queries, gnd)
    lost = sum(len(solution[query]) - len(entry["easy"]) for query, entry in zip(queries, gnd))
    written.notes.append(f"wrote {output / 'gnd_gldv2.pkl'}: {sum(len(entry['easy']) for entry in gnd)} right images")
    if lost:
        written.notes.append(
            f"{lost} right images are missing and not asked for: figures are not comparable with the full set's"
        )
    return written


def _write_list(written, path, names, labels, rows, sizes, skipped):
    """Write an image list of `rows`, and beside it what was skipped, where something was."""
    path = Path(path)
    write_image_list(path, [names[row] for row in rows], labels[rows], sizes)
    written.counts[path] = len(rows)
    written.skipped |= skipped
    reasons = path.with_name(path.name + ".skipped.csv")
    # That of an earlier run would tell of images that are there by now.
    reasons.unlink(missing_ok=True)
    if skipped:
        write_csv(reasons, [("name", "reason"), *skipped.items()], "backslashreplace")
        written.notes.append(f"skipped {len(skipped)} images, listed in {reasons}")
