"""Fetches the published DELG models and unpacks each into a folder of its own.

    python delg_extract/download_weights.py r50_gldv2
    python delg_extract/download_weights.py all

The short names are those of the data sets' configurations; the published ones are accepted as well:

    r50_gldv1    r50delg_gld_20200814             r50_gldv2    r50delg_gldv2clean_20200914
    r101_gldv1   r101delg_gld_20200814            r101_gldv2   r101delg_gldv2clean_20200914

and, by their published names alone: rn101_af_gldv2clean_20200814, delf_gld_20190411, resnet50_imagenet_weights.

No published checksum of these archives is known. What is checked without one: the length that the server announces, the
archive's own checksum (gzip), and that the model's main file is in it. SHA-256, size and address of what came are
printed and kept in <name>.json beside the model; --sha256 compares with a checksum from elsewhere, for example from
another machine's <name>.json.

A cut download is continued by the next run, and a model that is there is left alone. The exit status is 1 when a model
is missing.
"""

import os
import shutil
from pathlib import Path

from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError
from rrt.files.archives import ArchiveError, unpack_tar
from rrt.files.atomic import read_json, write_json
from rrt.files.downloads import download
from rrt.files.mirrors import describe_download, fetch_each, file_address, parse_checksums

BASE_URL = "https://storage.googleapis.com/delf"
# docs/delg.md 8: the archives, and the file that makes each a model, as it lies in the model's folder.
MAIN_FILES = {
    "r50delg_gld_20200814": "saved_model.pb",
    "r101delg_gld_20200814": "saved_model.pb",
    "r50delg_gldv2clean_20200914": "saved_model.pb",
    "r101delg_gldv2clean_20200914": "saved_model.pb",
    "rn101_af_gldv2clean_20200814": "saved_model.pb",
    "delf_gld_20190411": "model/saved_model.pb",
    "resnet50_imagenet_weights": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
}
SHORT_NAMES = {
    "r50_gldv1": "r50delg_gld_20200814",
    "r101_gldv1": "r101delg_gld_20200814",
    "r50_gldv2": "r50delg_gldv2clean_20200914",
    "r101_gldv2": "r101delg_gldv2clean_20200914",
}
NAMES = {**SHORT_NAMES, **{name: name for name in MAIN_FILES}}


def fetch_model(name, output_dir, base_url=BASE_URL, sha256=None, keep_archive=False):
    """Make output_dir/name of a published model -> (its record {url, size, sha256} or None where a hand put it there,
    whether it was there already).

    sha256: of the archive, hexadecimal. keep_archive: leave output_dir/name.tar.gz. Raises InputError.
    """
    output_dir = Path(output_dir)
    folder, archive, note = output_dir / name, output_dir / f"{name}.tar.gz", output_dir / f"{name}.json"
    if folder.exists():
        return _record_of(folder, note, MAIN_FILES[name], sha256), True
    url = file_address(base_url, archive.name)
    download(url, archive, sha256=sha256)
    record = describe_download(archive, url)
    unpacked = output_dir / f"{name}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        unpack_tar(archive, unpacked)
        model = _find_model(archive, unpacked, MAIN_FILES[name])
        # The note first: where the folder is, the note is as well.
        write_json(note, record)
        os.rename(model, folder)
    except ArchiveError:
        # Otherwise the next run would unpack it again.
        archive.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    if not keep_archive:
        archive.unlink()
    return record, False


def _record_of(folder, note, main_file, sha256):
    if not (folder / main_file).is_file():
        raise InputError(f"{folder}: no {main_file} in it; move the folder away and run again")
    record = read_json(note)
    if sha256 and (not isinstance(record, dict) or record.get("sha256") != sha256):
        found = record.get("sha256") if isinstance(record, dict) else "not known"
        raise InputError(
            f"{note}: the SHA-256 of the archive is {found}, expected {sha256}; delete {folder} and run again"
        )
    return record


def _find_model(archive, unpacked, main_file):
    """The folder below which the main file lies as it should, whatever folders the archive has around it."""
    found = [path for path in unpacked.rglob(Path(main_file).name) if path.as_posix().endswith(f"/{main_file}")]
    if not found:
        raise ArchiveError(
            f"{archive}: no {main_file} in it; it is not the published model, name a mirror with --base_url"
        )
    shallowest = min(found, key=lambda path: (len(path.parts), path))
    return shallowest.parents[main_file.count("/")]


def parser():
    """The options of the command."""
    p = CommandParser(__doc__)
    p.add_argument("names", nargs="+", metavar="NAME", help="short or published names, or all: the four DELG models")
    p.add_argument(
        "--output_dir",
        default=os.environ.get("DELG_MODELS") or "data/models",
        help="folder for the models' folders (default $DELG_MODELS, else data/models; now %(default)s)",
    )
    p.add_argument(
        "--base_url", default=BASE_URL, help="address the archives lie below, for a mirror (default %(default)s)"
    )
    p.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="NAME=HEX",
        help="SHA-256 the archive of a model must have; may be given several times (default: not compared)",
    )
    p.add_argument(
        "--keep_archives", action="store_true", help="keep the .tar.gz files beside the folders (default: deleted)"
    )
    return p


def main():
    """The command."""
    args = parser().parse_args()
    unknown = [name for name in args.names if name != "all" and name not in NAMES]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no published model; expected all or one of {', '.join(NAMES)}")
    chosen = list(
        dict.fromkeys(
            full for name in args.names for full in (SHORT_NAMES.values() if name == "all" else [NAMES[name]])
        )
    )
    sums = parse_checksums(args.sha256, NAMES)

    def fetch(name):
        record, was_there = fetch_model(name, args.output_dir, args.base_url, sums.get(name), args.keep_archives)
        print(f"{name}: {'already there,' if was_there else 'wrote'} {Path(args.output_dir) / name}")
        if isinstance(record, dict):
            print(f"  sha256 {record.get('sha256')}, {record.get('size')} bytes from {record.get('url')}")

    fetch_each(chosen, fetch, "models")
    return 0


if __name__ == "__main__":
    run_command(main)
