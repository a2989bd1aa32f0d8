"""A test set in the Revisited format: query list, gallery list and ground truth that belong together."""

from dataclasses import dataclass
from pathlib import Path

from rrt.errors import InputError
from rrt.files.names import same_text
from rrt.formats.ground_truth import GroundTruth, grades_of, load_ground_truth
from rrt.formats.lists import ImageList, read_image_list
from rrt.progress import warn


@dataclass(frozen=True)
class RevisitedSet:
    """query, gallery: ImageList. truth: GroundTruth whose qimlist and imlist name the same images in the same order."""

    query: ImageList
    gallery: ImageList
    truth: GroundTruth


def load_revisited_set(query_txt, gallery_txt, gnd_path):
    """Read the three files; InputError when one is missing or damaged, or when they name different images; a warning
    when no query has a right image, so that every measure is empty.

    Ground truth positions mean lines of the lists, so a different order would silently measure nonsense.
    """
    query, gallery = read_image_list(query_txt), read_image_list(gallery_txt)
    truth = load_ground_truth(gnd_path)
    _check_same_images(truth.path, "qimlist", truth.qimlist, query)
    _check_same_images(truth.path, "imlist", truth.imlist, gallery)
    if not any(len(entry[grade]) for entry in truth.gnd for grade in grades_of(entry) if grade != "junk"):
        warn(f"{truth.path}: no query has a right image, so that every measure is empty")
    return RevisitedSet(query, gallery, truth)


def _check_same_images(path, key, entries, images):
    remedy = "take the ground truth and the lists of one data set"
    if len(entries) != len(images):
        raise InputError(f"{path}: {key} has {len(entries)} images, {images.path} has {len(images)}; {remedy}")
    for line, (entry, name) in enumerate(zip(entries, images.names), start=1):
        # Published ground truth has file stems, the lists have paths.
        name, base = same_text(name), same_text(name).rpartition("/")[2]
        if same_text(entry) not in (name, base, Path(base).stem):
            raise InputError(f"{path}: {key} names '{entry}' where line {line} of {images.path} has '{name}'; {remedy}")
