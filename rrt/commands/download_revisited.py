"""Fetches the images and the ground truth of ROxford5k and RParis6k and writes their lists.

    python tools/download_revisited.py
    python tools/download_revisited.py oxford5k --base_url https://a.mirror/vgg --data_dir /disk/data

Makes data/oxford5k/ and data/paris6k/ with jpg/, the ground truth, test_query.txt and test_gallery.txt. Some gigabytes
are fetched for each; for a while the disk holds archives and images. A cut run is continued, and what is there is not
fetched again.

    <base_url>/oxbuildings/oxbuild_images.tgz                  5,063 images
    <base_url>/parisbuildings/paris_1.tgz, paris_2.tgz         6,412 images, some of them damaged at their source; no
    list has those <gnd_base_url>/roxford5k/gnd_roxford5k.pkl, <gnd_base_url>/rparis6k/gnd_rparis6k.pkl

The default addresses are those the data sets were published at; such pages move. The remedy is a mirror with the same
folders, or an archive from elsewhere: put under its name into data/oxford5k/ or data/paris6k/, it is used instead of
being fetched.

The ground truth is compared with the SHA-256 of the published files. Of the archives of images we know no published
checksum: they are unpacked to the end (gzip's own checksum), every image that the ground truth names must come out of
them and have an image's header, and their SHA-256 and size are kept in <archive>.json. --sha256 sets another checksum
for a file, or none.
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.datasets.downloads import BASE_URL, GND_BASE_URL, SOURCES, fetch_revisited
from rrt.errors import InputError
from rrt.files.mirrors import fetch_each, parse_checksums


def main():
    """Fetch the test sets named, each as far as it is not there; InputError after all when one failed."""
    files = [Path(file).name for source in SOURCES.values() for file in (*source.archives, source.ground_truth)]
    parser = CommandParser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"test sets: {', '.join(SOURCES)} (default all)")
    parser.add_argument("--data_dir", default="data", help="folder for the test sets' folders (default %(default)s)")
    parser.add_argument(
        "--base_url", default=BASE_URL, help="address above the archives of images (default %(default)s)"
    )
    parser.add_argument(
        "--gnd_base_url", default=GND_BASE_URL, help="address above the ground truth (default %(default)s)"
    )
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="FILE=HEX",
        help=(
            f"SHA-256 a file must have, or FILE=none to take any; may be given several times; files: {', '.join(files)}"
        ),
    )
    parser.add_argument(
        "--keep_archives", action="store_true", help="keep the archives beside the images (default: deleted)"
    )
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in SOURCES]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no test set; expected {' or '.join(SOURCES)}")
    sums = parse_checksums(args.sha256, {file: file for file in files})

    def fetch(name):
        count = fetch_revisited(name, args.data_dir, args.base_url, args.gnd_base_url, sums, args.keep_archives)
        done = f"unpacked {count} images into" if count else "all images are already in"
        print(f"{name}: {done} {Path(args.data_dir) / name / 'jpg'}")

    fetch_each(list(dict.fromkeys(args.names)) or list(SOURCES), fetch, "test sets")
    return 0
