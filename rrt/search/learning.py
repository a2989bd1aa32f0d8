"""Whitening learned from a store: on all of its images or those of a list, with matching pairs that a file names."""

import numpy as np

from rrt.errors import InputError
from rrt.formats.lists import read_image_list
from rrt.progress import waiting
from rrt.search.exact import load_globals
from rrt.search.whitening import fit_pca_whitening, fit_supervised_whitening
from rrt.store.store import Store

METHODS = ("pca", "supervised")


def learn_whitening(
    store_path,
    out_path,
    list_path=None,
    dim=256,
    power=0.5,
    method="pca",
    pairs_path=None,
    shrinkage=None,
    min_inliers=0,
):
    """Learn a whitening on all images of the store, or on those of an image list, and write it -> path.

    dim: dimensions kept. power: exponent of the eigenvalue that is divided by (0.5 whitening, 0 PCA alone). method: one
    of METHODS; supervised takes matching pairs from the labels of the list, or from the file pairs_path (of images
    among those learned on), those of at least min_inliers alone; shrinkage of fit_supervised_whitening, None = 0.5.
    """
    if not str(out_path).endswith(".npz"):
        raise InputError(f"{out_path}: the name of a whitening file ends in .npz")
    if method not in METHODS:
        raise InputError(f"setting method={method!r}: expected {' or '.join(METHODS)}")
    if method == "pca" and (pairs_path or shrinkage is not None):
        raise InputError("--pairs and --shrinkage are for --method supervised; leave them out or give it")
    if method == "supervised" and not (list_path or pairs_path):
        raise InputError("--method supervised needs matching images; give --list, whose labels say which, or --pairs")
    if min_inliers and not pairs_path:
        raise InputError("--min_inliers chooses among the pairs of a file; give --pairs")
    images = read_image_list(list_path) if list_path else None
    pairs = _read_pairs(pairs_path, store_path, images, min_inliers) if pairs_path else None
    with waiting("reading descriptors"):
        (descriptors,) = load_globals(store_path, images)
    with waiting(f"whitening ({method})"):
        if method == "pca":
            whitening = fit_pca_whitening(descriptors, dim, power)
        else:
            labels = images.labels if images and pairs is None else None
            whitening = fit_supervised_whitening(
                descriptors, dim, labels, pairs, power, 0.5 if shrinkage is None else shrinkage
            )
    return whitening.save(out_path)


def _read_pairs(path, store_path, images, min_inliers):
    """int64 [P, 2]: positions of the file's pairs in the image list, or in the store."""
    import pandas as pd

    columns = ["first", "second"] + ["inliers"] * bool(min_inliers)
    try:
        table = pd.read_csv(path, dtype={"first": str, "second": str}, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InputError(
            f"{path}: no table of pairs ({str(error).splitlines()[0]}); expected a CSV file with the columns"
            f" {', '.join(columns)}"
        ) from None
    for column in columns:
        if column not in table:
            raise InputError(f"{path}: no column {column!r}; expected {', '.join(columns)}")
    if min_inliers:
        inliers = pd.Series(pd.to_numeric(table["inliers"], errors="coerce"))
        if inliers.isna().any():
            line = int(inliers.isna().argmax())
            raise InputError(f"{path}: line {line + 2}: inliers {table['inliers'][line]!r} is not a number")
        table = table[inliers >= min_inliers].reset_index(drop=True)
        if not len(table):
            raise InputError(f"{path}: no pair has {min_inliers} inliers; give a lower --min_inliers")
    if images is None:
        with Store(store_path) as store:
            names = store.names
    else:
        names = images.names
    positions = {name: position for position, name in enumerate(names)}
    for column in columns[:2]:
        for name in table[column]:
            if name not in positions:
                raise InputError(
                    f"{path}: names '{name}', which is not in {images.path if images else store_path};"
                    " leave the pair out"
                )
    return np.array([[positions[name] for name in table[column]] for column in columns[:2]], dtype=np.int64).T
