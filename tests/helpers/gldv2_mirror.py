"""A small mirror of the Google Landmarks Dataset v2: CSV files, tar files, MD5 sums, in the folders of the published
one.

    python tests/helpers/gldv2_mirror.py FOLDER --classes 6 --pictures 8
    (cd FOLDER && python -m http.server --bind 127.0.0.1 8017) &
    python delg_extract/download_dataset.py 2 1 1 --base_url http://127.0.0.1:8017 --output_dir gldv2_dataset

`make_mirror` takes any images. Run as a command, it draws them: a landmark is a wall with ornaments of its own, a
image a crop of it in perspective, light and noise of its own; so that a small network learns them in a few steps and
images of one landmark match.
"""

import argparse
import csv
import functools
import hashlib
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from loopback import tar_bytes
from PIL import Image

from rrt.command_line.parser import run_command
from rrt.scenes.augment import pyramid
from rrt.scenes.photo_views import ViewSettings, draw_view, focus_point
from rrt.scenes.textures import WALLS, motif, paint, wall

# The landmarks of the index split have other numbers than those of train.
INDEX_OFFSET = 1_000_000
DEFAULT_TARS = {"train": 2, "index": 1, "test": 1}


def make_mirror(folder, train=(), index=(), test=(), tars=DEFAULT_TARS, clean=None):
    """Write a mirror -> {path below the folder: bytes} of all its files.

    train, index, test: (id of 16 hexadecimal digits, landmark, image) of each image; landmark: a number of train's,
    None for an image of none; image: a JPEG's bytes, uint8 [H, W, 3] RGB, or a function without arguments that gives
    one of them. tars: number of tar files of a split, over which its images are dealt in turn. clean: ids that
    train_clean.csv has, all by default. The right answers to a test image are the index images of its landmark.
    """
    train, index, test = list(train), list(index), list(test)
    files = {f"metadata/{name}": text for name, text in _tables_of_train(train, clean).items()}
    files["metadata/index.csv"] = _table("id", [[picture] for picture, _, _ in index])
    files["metadata/index_image_to_landmark.csv"] = _table(
        "id,landmark_id", [[picture, landmark + INDEX_OFFSET] for picture, landmark, _ in index if landmark is not None]
    )
    files["metadata/index_label_to_category.csv"] = _categories(index, INDEX_OFFSET)
    files["metadata/test.csv"] = _table("id", [[picture] for picture, _, _ in test])
    usage = ["Public", "Private"]
    files["ground_truth/recognition_solution_v2.1.csv"] = _table(
        "id,landmarks,Usage",
        [
            [picture, "" if landmark is None else landmark, usage[i % 2]]
            for i, (picture, landmark, _) in enumerate(test)
        ],
    )
    answers = [
        " ".join(other for other, there, _ in index if there == landmark and there is not None)
        for _, landmark, _ in test
    ]
    files["ground_truth/retrieval_solution_v2.1.csv"] = _table(
        "id,images,Usage",
        [
            [picture, right or "None", usage[i % 2] if right else "Ignored"]
            for i, ((picture, _, _), right) in enumerate(zip(test, answers, strict=True))
        ],
    )
    for split, pictures in (("train", train), ("index", index), ("test", test)):
        for number in range(tars.get(split, 0)):
            name = f"images_{number:03d}"
            chosen = pictures[number :: tars[split]]
            tar = tar_bytes({member_name(picture): _jpeg(content) for picture, _, content in chosen}, compress=False)
            files[f"{split}/{name}.tar"] = tar
            files[f"md5sum/{split}/md5.{name}.txt"] = md5_line(tar, f"{name}.tar")
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


def member_name(picture):
    """Where an image lies in its tar file and below its split's folder."""
    return f"{picture[0]}/{picture[1]}/{picture[2]}/{picture}.jpg"


def md5_line(content, name):
    """What md5sum prints of a file."""
    return f"{hashlib.md5(content).hexdigest()}  {name}\n".encode()


def image_id(*key):
    """An id of 16 hexadecimal digits that depends on the key alone."""
    return hashlib.md5(repr(key).encode()).hexdigest()[:16]


def drawn_images(split, landmarks, pictures, size=160, seed=0):
    """(id, landmark, function that draws it) of so many images of each landmark, for `make_mirror`. size: longer
    side, pixels."""
    return [
        (image_id(seed, split, landmark, k), landmark, functools.partial(draw_image, split, landmark, k, size, seed))
        for k in range(pictures)
        for landmark in landmarks
    ]


def draw_image(split, landmark, number, size=160, seed=0):
    """One image of a landmark as the bytes of a JPEG; it depends on the arguments alone."""
    image = draw_landmark(landmark, seed)
    rng = np.random.default_rng([seed, landmark, number, ["train", "index", "test"].index(split)])
    settings = ViewSettings(size=size, smallest_crop=0.4, perspective=0.1, rotation=8, strength=0.4)
    return draw_view(pyramid(image), focus_point(np.random.default_rng([seed, landmark]), image), [], rng, settings)


@functools.cache
def draw_landmark(landmark, seed=0):
    """The wall that a landmark is, uint8 [360, 480, 3] (blue, green, red): material, colour and ornaments of its
    own."""
    rng = np.random.default_rng([seed, landmark])
    hues = np.uint8([[[rng.integers(180), 140, 200], [rng.integers(180), 200, 120], [rng.integers(180), 90, 250]]])
    stone, middle, raised = cv2.cvtColor(hues, cv2.COLOR_HSV2BGR)[0].astype(float)
    image = wall(rng, WALLS[rng.integers(len(WALLS))], (360, 480), stone, rng.uniform(18, 34))
    codes = rng.integers(1 << 30, size=4)
    for row in range(3):
        for column in range(4):
            side = int(rng.integers(70, 110))
            x, y = (np.array([column, row]) * 120 + rng.integers(0, 120 - side, 2)).tolist()
            paint(image, motif(int(rng.choice(codes)), side), x, y, (stone * 0.6, middle, raised))
    return image


def _tables_of_train(train, clean):
    of_landmark = {}
    for picture, landmark, _ in train:
        if clean is None or picture in clean:
            of_landmark.setdefault(landmark, []).append(picture)
    url = "http://127.0.0.1/{}.jpg".format
    return {
        "train.csv": _table(
            "id,url,landmark_id", [[picture, url(picture), landmark] for picture, landmark, _ in train]
        ),
        "train_clean.csv": _table(
            "landmark_id,images", [[landmark, " ".join(ids)] for landmark, ids in of_landmark.items()]
        ),
        "train_attribution.csv": _table(
            "id,url,author,license,title",
            [
                [picture, url(picture), "nobody", "http://127.0.0.1/licence", f"A wall, {picture}"]
                for picture, _, _ in train
            ],
        ),
        "train_label_to_category.csv": _categories(train),
    }


def _categories(pictures, offset=0):
    landmarks = sorted({landmark for _, landmark, _ in pictures if landmark is not None})
    return _table(
        "landmark_id,category", [[mark + offset, f"http://127.0.0.1/Category:Wall_{mark}"] for mark in landmarks]
    )


def _table(header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return text.getvalue().encode()


def _jpeg(picture):
    picture = picture() if callable(picture) else picture
    if isinstance(picture, bytes):
        return picture
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the mirror")
    parser.add_argument("--classes", type=int, default=6, help="landmarks (default %(default)s)")
    parser.add_argument(
        "--pictures", type=int, default=8, help="training images of each landmark (default %(default)s)"
    )
    parser.add_argument(
        "--index_pictures", type=int, default=2, help="index images of each landmark (default %(default)s)"
    )
    parser.add_argument(
        "--test_pictures", type=int, default=1, help="test images of each landmark (default %(default)s)"
    )
    parser.add_argument("--size", type=int, default=160, help="longer side of an image in pixels (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images (default %(default)s)")
    args = parser.parse_args()
    # Numbers with gaps, as in train_clean.csv, so that relabelling has something to do.
    landmarks = [17 * k + 5 for k in range(args.classes)]
    of_split = {
        split: drawn_images(split, landmarks, count, args.size, args.seed)
        for split, count in (("train", args.pictures), ("index", args.index_pictures), ("test", args.test_pictures))
    }
    make_mirror(args.folder, **of_split)
    print(
        f"wrote {args.folder}: "
        + ", ".join(
            f"{len(of_split[split])} {split} images in {count} tar files" for split, count in DEFAULT_TARS.items()
        )
    )


TAR = "/gldv2/train/images_001.tar"


def put(mirror, content, tar=TAR):
    """Another tar file on the mirror, with its MD5 sum."""
    name = tar.split("/")[-1]
    mirror.files[tar] = content
    mirror.files[tar.replace("/gldv2/", "/gldv2/md5sum/").replace(name, f"md5.{name[:-4]}.txt")] = md5_line(
        content, name
    )


def images_in(tar):
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        return {member.name: members.extractfile(member).read() for member in members}


def tree_of(folder):
    """{path: bytes} of all files but the records of unpacked tar files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".tar.json")
    }


if __name__ == "__main__":
    run_command(main)
