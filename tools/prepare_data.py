"""Makes image lists (`path,label,width,height` a line).

    python tools/prepare_data.py folder PHOTOS data/mine/train.txt

`folder`: a folder with a sub-folder per landmark; names in the list are relative to it, labels count the sub-folders in
alphabetical order. Sizes are read from the picture's header without decoding it. Files that are no picture or cannot be
read are named, and the exit status is 1 unless --allow_missing is given; the list is written all the same.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from rrt.errors import InputError, run_command
from rrt.lists import write_image_list

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}


def picture_size(path):
    """(width, height) from the header, or the reason (a string) why there is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def list_folder(photos, output, threads=8):
    """List the pictures of every sub-folder of `photos` into `output` -> (number listed, {path: reason} of the others).

    Raises InputError when there is no sub-folder with a readable picture.
    """
    photos = Path(photos)
    if not photos.is_dir():
        raise InputError(f"{photos}: no such folder; give a folder with a sub-folder of pictures per landmark")
    labels = sorted(folder for folder in photos.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    files = [(path, label) for label, folder in enumerate(labels) for path in sorted(folder.rglob("*"))
             if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not files:
        raise InputError(f"{photos}: no pictures in sub-folders; put the pictures of each landmark into a sub-folder of its own")
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(picture_size, (path for path, _ in files))
        sizes = list(tqdm(found, total=len(files), desc="sizes", unit="picture", disable=None))
    bad = {path: size for (path, _), size in zip(files, sizes) if isinstance(size, str)}
    kept = [(path, label, size) for (path, label), size in zip(files, sizes) if not isinstance(size, str)]
    if not kept:
        raise InputError(f"{photos}: none of {len(files)} files is a readable picture, first {files[0][0].name}: {sizes[0]}")
    write_image_list(Path(output), [path.relative_to(photos).as_posix() for path, _, _ in kept],
                     np.array([label for _, label, _ in kept]), np.array([size for _, _, size in kept]))
    return len(kept), bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    folder = modes.add_parser("folder", help="a folder with a sub-folder per landmark")
    folder.add_argument("photos", help="the folder")
    folder.add_argument("output", help="the list to write")
    folder.add_argument("--allow_missing", action="store_true", help="exit status 0 although some pictures cannot be read")
    args = parser.parse_args()
    count, bad = list_folder(args.photos, args.output)
    print(f"wrote {args.output}: {count} pictures")
    for path, reason in bad.items():
        print(f"skipped {path}: {reason}")
    if bad and not args.allow_missing:
        raise InputError(f"{args.photos}: {len(bad)} files cannot be read as pictures, first {next(iter(bad))}; "
                         "mend or remove them, or accept with --allow_missing")


if __name__ == "__main__":
    run_command(main)
