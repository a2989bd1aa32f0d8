"""Landmarks of a training list held out as a validation set in the Revisited format."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import ImageList, read_image_list, write_image_list
from rrt.store.store import Store


@dataclass(frozen=True)
class Split:
    """The files written, and what they hold: `num_train` images for training, `num_query`, `num_gallery` (distractors
    included) and the labels held out; `num_left_out` images of the list were not in the store."""

    train: Path
    query: Path
    gallery: Path
    gnd: Path
    links: list
    num_train: int
    num_query: int
    num_gallery: int
    held_out: np.ndarray
    num_left_out: int = 0


def train_val_split(
    list_path,
    out_train,
    out_val,
    name="val",
    landmarks=None,
    fraction=None,
    queries=1,
    distractors=0,
    seed=0,
    link_stores=False,
    query_seed=None,
    view_list=None,
    join_views=False,
    held_out=None,
    store=None,
):
    """Split the landmarks (labels) of an image list into training and validation -> Split.

    landmarks, fraction: how many labels to hold out, one of the two. queries: images of each that become queries; its
    others are the positives. distractors: images of the training part that are added to the gallery (they stay in
    training too). Only labels with more than `queries` images are drawn, by `seed`; query_seed: other queries and
    distractors for the same labels. link_stores: link every delg_*.h5 beside the list into both folders. store: link
    this one into both folders, and leave out images that it does not hold (they could not be described). view_list:
    made views of the list's photographs (tools/make_views.py); those of the training part are listed in
    `<out_train>_views/train.txt`, by their position in the part's list. join_views: and, as further images of their
    photographs' landmarks, behind the part's own images in `<out_train>_joined/train.txt`; its stores are folders of
    the two that lie beside the lists. held_out: the labels themselves, instead of their number. Raises InputError
    before anything is written.
    """
    list_path, out_train, out_val = Path(list_path), Path(out_train), Path(out_val)
    images, places, num_left_out = _read_described(list_path, store)
    _check_folders(list_path, out_train, out_val)
    if join_views and view_list is None:
        raise InputError(f"{list_path}: no list of made views to join with; name the one of tools/make_views.py")
    generator = np.random.default_rng(seed)
    if held_out is None:
        held_out = _draw_labels(images, landmarks, fraction, queries, generator)
    train = np.flatnonzero(~np.isin(images.labels, held_out))
    if not 0 <= distractors <= len(train):
        raise InputError(f"{list_path}: {distractors} distractors asked for, the training part has {len(train)} images")
    if query_seed is not None:
        generator = np.random.default_rng(query_seed)
    query = np.concatenate(
        [np.sort(generator.permutation(np.flatnonzero(images.labels == label))[:queries]) for label in held_out]
    )
    positives = np.setdiff1d(np.flatnonzero(np.isin(images.labels, held_out)), query)
    gallery = np.concatenate([positives, np.sort(generator.choice(train, distractors, replace=False))])
    gnd = [
        {
            "bbx": [0.0, 0.0, float(width), float(height)],
            "hard": [],
            "junk": [],
            "easy": np.flatnonzero(images.labels[gallery] == label).tolist(),
        }
        for label, (width, height) in zip(images.labels[query], images.sizes[query].tolist())
    ]

    views = None if view_list is None else _read_views(view_list, list_path, len(places) + num_left_out)
    views_folder = out_train.with_name(f"{out_train.name}_views")
    stores = [Path(store)] if store else sorted(list_path.parent.glob("delg_*.h5")) if link_stores else []
    links = _link_stores(stores, (out_train, out_val))
    if views is not None:
        links += _link_stores(sorted(views.path.parent.glob("delg_*.h5")), [views_folder]) if link_stores else []
        rows = np.flatnonzero(np.isin(views.labels, places[train]))
        # Of which photograph of the part's own list they are.
        labels = np.searchsorted(places[train], views.labels[rows])
        of_train = ImageList(views_folder / "train.txt", _names(views, rows), labels, views.sizes[rows])
        write_image_list(of_train.path, of_train.names, of_train.labels, of_train.sizes)
        if join_views:
            links += _join(out_train.with_name(f"{out_train.name}_joined"), images, train, of_train, stores, view_list)
    split = Split(
        out_train / "train.txt",
        out_val / "test_query.txt",
        out_val / "test_gallery.txt",
        out_val / f"gnd_{name}.pkl",
        links,
        len(train),
        len(query),
        len(gallery),
        held_out,
        num_left_out,
    )
    for path, rows in ((split.train, train), (split.query, query), (split.gallery, gallery)):
        write_image_list(path, _names(images, rows), images.labels[rows], images.sizes[rows])
    save_ground_truth(split.gnd, _names(images, gallery), _names(images, query), gnd)
    return split


def split_in_folds(list_path, out_train, out_val, folds: int, name="val", **options) -> list[Split]:
    """Deal the landmarks of an image list into ``folds`` parts and hold each out in turn: `<out_train>_0`,
    `<out_val>_0`, `<out_train>_1`, ... -> Splits. options: those of ``train_val_split`` but for how much is held out.

    Raises InputError before anything is written where there are too few landmarks.
    """
    images = _read_described(list_path, options.get("store"))[0]
    queries, seed = options.get("queries", 1), options.get("seed", 0)
    labels, counts = np.unique(images.labels, return_counts=True)
    eligible = np.random.default_rng(seed).permutation(labels[counts > queries])
    if not 2 <= folds <= len(eligible) or len(labels) - -(-len(eligible) // folds) < 2:
        raise InputError(
            f"{list_path}: {len(eligible)} landmarks of more than {queries} images make no {folds} folds that leave two"
            " to train on; give another number of folds or fewer queries"
        )
    splits = []
    for fold in range(folds):
        train, val = (Path(out).with_name(f"{Path(out).name}_{fold}") for out in (out_train, out_val))
        splits.append(train_val_split(list_path, train, val, name, held_out=np.sort(eligible[fold::folds]), **options))
    return splits


def keep_described(list_path, store, output) -> tuple[int, int]:
    """Write the images of a list that a store holds, without those that could not be described -> how many there are,
    and how many are left out. InputError where none is held."""
    images, _, num_left_out = _read_described(list_path, store)
    if not len(images):
        raise InputError(f"{store}: holds none of the {num_left_out} images of {list_path}; extract this list into it")
    write_image_list(output, images.names, images.labels, images.sizes)
    return len(images), num_left_out


def _read_described(list_path, store):
    """(The images of a list that a store holds, all without one; their rows in the list; how many are left out)."""
    images = read_image_list(Path(list_path))
    if not store:
        return images, np.arange(len(images)), 0
    with Store(store) as opened:
        held = set(opened.names)
    rows = np.array([row for row, name in enumerate(images.names) if name in held], np.int64)
    kept = ImageList(images.path, _names(images, rows), images.labels[rows], images.sizes[rows])
    return kept, rows, len(images) - len(rows)


def _read_views(view_list, list_path, num_photographs):
    views = read_image_list(view_list)
    wrong = (views.labels < 0) | (views.labels >= num_photographs)
    if wrong.any():
        raise InputError(
            f"{view_list}:{np.argmax(wrong) + 1}: a view of photograph {views.labels[wrong][0]}, {list_path} has"
            f" {num_photographs}; give the views that tools/make_views.py made of this list"
        )
    return views


def _join(folder, images, train, views, stores, view_list):
    """Write the list of the images ``train`` and their views, and link the stores of both -> links."""
    labels = images.labels[train]
    write_image_list(
        folder / "train.txt",
        _names(images, train) + views.names,
        np.concatenate([labels, labels[views.labels]]),
        np.concatenate([images.sizes[train], views.sizes]),
    )
    links = []
    for store in stores:
        of_views = Path(view_list).parent / store.name
        if of_views.exists():
            links += _link({folder / store.name / "photographs.h5": store, folder / store.name / "views.h5": of_views})
    return links


def _names(images, rows):
    return [images.names[row] for row in rows]


def _check_folders(list_path, out_train, out_val):
    if (out_train / "train.txt").resolve() == list_path.resolve():
        raise InputError(f"{list_path}: the training part would overwrite the list itself; name another folder")
    if out_train.resolve() == out_val.resolve():
        raise InputError(f"{out_val}: training and validation need two folders, their neighbour files have one name")


def _draw_labels(images, landmarks, fraction, queries, generator):
    labels, counts = np.unique(images.labels, return_counts=True)
    if len(labels) < 3:
        raise InputError(
            f"{images.path}: {len(labels)} landmarks with images that can be used; three are needed, two to train on"
            " and one to hold out"
        )
    if (landmarks is None) == (fraction is None):
        raise InputError("say how much to hold out: either a number of landmarks or a fraction of them")
    if landmarks is None:
        if not 0 < fraction < 1:
            raise InputError(f"fraction {fraction} of the landmarks: expected a number between 0 and 1")
        landmarks = max(1, round(fraction * len(labels)))
    if queries < 1 or landmarks < 1:
        raise InputError(f"{landmarks} landmarks with {queries} queries each: at least 1 of both is needed")
    eligible = labels[counts > queries]
    if landmarks > len(eligible):
        raise InputError(
            f"{images.path}: {landmarks} landmarks to hold out, but only {len(eligible)} of {len(labels)}"
            f" have the {queries + 1} images needed for {queries} queries and a positive"
        )
    if len(labels) - landmarks < 2:
        raise InputError(
            f"{images.path}: holding out {landmarks} of {len(labels)} landmarks leaves fewer than two for"
            " training; hold out fewer"
        )
    return np.sort(generator.choice(eligible, landmarks, replace=False))


def _link_stores(stores, folders):
    return _link({folder / store.name: store for store in stores for folder in folders})


def _link(wanted):
    wanted = {link: store for link, store in wanted.items() if link.resolve() != store.resolve()}
    for link, store in wanted.items():
        if os.path.lexists(link):
            raise InputError(f"{link}: stands in the way of a link to {store}; remove it or name another folder")
    for link, store in wanted.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(store.resolve(), link.parent.resolve()))
    return list(wanted)
