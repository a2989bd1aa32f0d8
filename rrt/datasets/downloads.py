"""The images and the ground truth of ROxford5k and RParis6k: fetched, checked and unpacked beside their lists."""

from pathlib import Path
from typing import NamedTuple

from rrt.datasets.sets import TEST_LISTS
from rrt.errors import InputError
from rrt.files.archives import ArchiveError, unpack_tar
from rrt.files.atomic import write_json
from rrt.files.downloads import download
from rrt.files.mirrors import describe_download, file_address
from rrt.formats.ground_truth import load_ground_truth
from rrt.formats.listing import list_revisited

BASE_URL = "https://www.robots.ox.ac.uk/~vgg/data"
GND_BASE_URL = "http://cmp.felk.cvut.cz/revisitop/data/datasets"


class Source(NamedTuple):
    """Where a test set comes from: names below the two base addresses; the SHA-256 of its published ground truth."""

    archives: tuple
    ground_truth: str
    gnd_sha256: str


SOURCES = {
    "oxford5k": Source(
        ("oxbuildings/oxbuild_images.tgz",),
        "roxford5k/gnd_roxford5k.pkl",
        "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471",
    ),
    "paris6k": Source(
        ("parisbuildings/paris_1.tgz", "parisbuildings/paris_2.tgz"),
        "rparis6k/gnd_rparis6k.pkl",
        "d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499",
    ),
}


def fetch_revisited(
    name, data_dir="data", base_url=BASE_URL, gnd_base_url=GND_BASE_URL, sums=None, keep_archives=False
):
    """Make data_dir/name of a test set of SOURCES whole -> number of images unpacked, 0 when all were there.

    sums: {file: SHA-256 or None for any}, over what is known here. keep_archives: leave the archives in the folder.
    Raises InputError.
    """
    source, folder = SOURCES[name], Path(data_dir) / name
    ground_truth = folder / Path(source.ground_truth).name
    sums = {ground_truth.name: source.gnd_sha256} | (sums or {})
    download(file_address(gnd_base_url, source.ground_truth), ground_truth, sha256=sums[ground_truth.name])
    count = 0
    if _missing_images(folder, ground_truth):
        archives = {folder / Path(address).name: file_address(base_url, address) for address in source.archives}
        for archive, url in archives.items():
            download(url, archive, sha256=sums.get(archive.name))
        count = sum(_unpack_images(archive, url, folder) for archive, url in archives.items())
        missing = _missing_images(folder, ground_truth)
        # Archives that lack images would be taken for whole by the next run, whichever mirror it names.
        if missing or not keep_archives:
            for archive in archives:
                archive.unlink()
        if missing:
            raise InputError(
                f"{folder / 'jpg'}: {len(missing)} images of {ground_truth} did not come out of the archives, first "
                f"{missing[0]}; name a whole mirror with --base_url"
            )
    if not all((folder / file).exists() for file in TEST_LISTS):
        try:
            list_revisited(folder, ground_truth, folder)
        except InputError as error:
            raise InputError(f"{error}; delete {folder / 'jpg'} and run again") from None
    return count


def _missing_images(folder, ground_truth):
    truth = load_ground_truth(ground_truth)
    there = {path.name for path in (folder / "jpg").glob("*.jpg")}
    return [f"{name}.jpg" for name in truth.qimlist + truth.imlist if f"{name}.jpg" not in there]


def _unpack_images(archive, url, folder):
    """Unpack all images of an archive, whatever folders they are in, into folder/jpg, and note what the archive
    was."""
    try:
        count = unpack_tar(
            archive,
            folder / "jpg",
            strip=None,
            merge=True,
            wanted=lambda name: name.endswith(".jpg") and not name.startswith("."),
        )
    except ArchiveError:
        # Otherwise the next run would unpack it again.
        archive.unlink()
        raise
    write_json(archive.with_name(f"{archive.name}.json"), describe_download(archive, url))
    return count
