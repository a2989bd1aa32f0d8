"""Codebooks of visual words (centres of local descriptors, learned by k-means), and images aggregated by them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.files.arrays import load_npz
from rrt.files.atomic import atomic_path
from rrt.formats.lists import read_image_list
from rrt.progress import waiting
from rrt.store.checked import sample_descriptors
from rrt.store.local_counts import check_locals
from rrt.store.store import Store
from rrt.store.values import as_float32

MAKE = "make it with: python tools/train_codebook.py STORE CODEBOOK.npz"


@dataclass(frozen=True)
class Codebook:
    """words: float32 [K, D], one visual word a row; origin: {what: text} of the training; path: of its file; seen:
    uint64 [N], rising: digests of the images it was learned on, None in files that do not say."""

    words: np.ndarray
    origin: dict
    path: Path | None = None
    seen: np.ndarray | None = None

    def __len__(self):
        return len(self.words)

    @property
    def dim(self) -> int:
        """Dimensions of a word, D."""
        return self.words.shape[1]

    def assign(self, rows: np.ndarray, count: int = 1) -> np.ndarray:
        """The ``count`` nearest words (L2 distance, the nearest first; all when there are fewer) of descriptors [n, D]
        -> int64 [n, min(count, K)]."""
        if not len(rows):
            return np.empty((0, min(count, len(self))), np.int64)
        import faiss

        return faiss.knn(np.ascontiguousarray(rows, np.float32), self.words, min(count, len(self)))[1]

    def check_fits(self, store) -> None:
        """InputError when the store holds no local descriptors or those of another size."""
        check_locals(store, None, "a codebook")
        if store.local_dim != self.dim:
            raise InputError(
                f"{self.path or 'codebook'}: words of {self.dim} dimensions, the local descriptors of "
                f"{store.path} have {store.local_dim}; {MAKE}"
            )

    def count_seen(self, store, images: np.ndarray) -> int:
        """How many of the images (indices in a store) it was learned on, as far as its file says."""
        return 0 if self.seen is None else int(np.isin(_digests(store, images), self.seen).sum())

    def save(self, path) -> Path:
        """Write an .npz, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            origin = {f"origin_{what}": np.array(text) for what, text in self.origin.items()}
            seen = {} if self.seen is None else {"seen": self.seen}
            np.savez(file, allow_pickle=False, words=self.words, **seen, **origin)
        return Path(path)


def load_codebook(path) -> Codebook:
    """Read what Codebook.save wrote; InputError for a missing, damaged or different file."""
    path = Path(str(path))
    if not path.is_file():
        raise InputError(f"{path}: no such codebook; {MAKE}")
    try:
        arrays = load_npz(path)
        words, seen = arrays["words"], arrays.get("seen")
        origin = {
            name.removeprefix("origin_"): str(array) for name, array in arrays.items() if name.startswith("origin_")
        }
    except Exception as error:  # zipfile, numpy and struct raise many kinds for a damaged file
        raise InputError(f"{path}: not a codebook ({error}); {MAKE}") from error
    if words.ndim != 2 or not words.size or words.dtype != np.float32 or not np.isfinite(words).all():
        raise InputError(
            f"{path}: its words are {words.dtype} of shape {words.shape}, or not finite; expected float32 "
            f"[words, dimensions]; {MAKE}"
        )
    return Codebook(np.ascontiguousarray(words), origin, path, seen)


@dataclass(frozen=True)
class Aggregated:
    """Several images by visual words: image i holds words[offsets[i]:offsets[i + 1]], rising. vectors: the sum of the
    residuals of the descriptors at each, as a unit vector, float16 [E, D], or its signs as bits, uint64 [E, ceil(D /
    64)]."""

    offsets: np.ndarray
    words: np.ndarray
    vectors: np.ndarray


def aggregate(
    codebook: Codebook, rows: np.ndarray, offsets: np.ndarray, assignments: int = 1, binary: bool = False
) -> Aggregated:
    """Local descriptors rows [m, D] of images that own rows offsets[i] to offsets[i + 1], each descriptor counted for
    its ``assignments`` nearest words. A word whose residuals cancel out is left out."""
    rows, num_images = as_float32(rows), len(offsets) - 1
    nearest = codebook.assign(rows, assignments)
    keys = (np.repeat(np.arange(num_images), np.diff(offsets))[:, None] * len(codebook) + nearest).ravel()
    order = np.argsort(keys, kind="stable")
    heads = np.flatnonzero(np.diff(keys[order], prepend=-1))
    keys = keys[order][heads]
    residuals = rows[order // max(1, nearest.shape[1])] - codebook.words[nearest.ravel()[order]]
    sums = np.add.reduceat(residuals, heads) if len(heads) else residuals
    lengths = np.linalg.norm(sums, axis=1)
    kept = lengths > 0
    keys, sums = keys[kept], sums[kept]
    if binary:
        bits = np.zeros((len(sums), -(-codebook.dim // 64) * 64), bool)
        bits[:, : codebook.dim] = sums > 0
        vectors = np.packbits(bits, axis=1).view(np.uint64)
    else:
        vectors = (sums / lengths[kept, None]).astype(np.float16)
    owners = keys // len(codebook)
    return Aggregated(
        np.searchsorted(owners, np.arange(num_images + 1)), (keys % len(codebook)).astype(np.int32), vectors
    )


def train_codebook(
    store, size: int, images=None, sample: int | None = None, seed: int = 0, iterations: int = 20
) -> Codebook:
    """k-means of ``size`` words on local descriptors of a store, the same for the same seed.

    images: indices in the store to learn from (None: all). sample: descriptors learned from, chosen at random among all
    of these images, each as likely as any other (None: 256 a word, as many as faiss deems useful). Memory: those and as
    many rows again. InputError when there are fewer descriptors than words.
    """
    settings = (("size", size, 1), ("iterations", iterations, 1), ("sample", sample, 1), ("seed", seed, 0))
    for name, value, least in settings:
        if value is not None and value < least:
            raise InputError(f"codebook with {name} {value}: expected at least {least}")
    sample = 256 * size if sample is None else sample
    if sample < size:
        raise InputError(
            f"codebook of {size} words from a sample of {sample} descriptors: give a sample as large at least"
        )
    rows = sample_descriptors(store, sample, images, seed)
    if len(rows) < size:
        raise InputError(
            f"{store.path}: {len(rows)} local descriptors make no {size} words; give a size of at most {len(rows)}"
        )
    import faiss

    # It would warn of few points, and take a sample of its own of many.
    settings = faiss.ClusteringParameters()
    settings.niter, settings.seed = iterations, seed
    settings.min_points_per_centroid, settings.max_points_per_centroid = 1, -(-len(rows) // size)
    means = faiss.Clustering(store.local_dim, size, settings)
    stats: Any = means.iteration_stats  # a std::vector, whatever the stubs of faiss say
    with waiting("k-means", lambda: min(stats.size(), iterations), unit="iteration", total=iterations):
        means.train(rows, faiss.IndexFlatL2(store.local_dim))
    words = faiss.vector_to_array(means.centroids).reshape(size, -1)
    made_by = {name: store.attributes[name] for name in ("desc_name", "model_sha256")}
    origin = {
        "store": store.path,
        **made_by,
        "images": len(store) if images is None else len(images),
        "descriptors": len(rows),
        "seed": seed,
        "iterations": iterations,
        "error": f"{stats.at(stats.size() - 1).obj / len(rows):.6f}",
        "faiss": faiss.__version__,
    }
    seen = np.sort(_digests(store, np.arange(len(store)) if images is None else images))
    return Codebook(words, {what: str(value) for what, value in origin.items()}, seen=seen)


def _digests(store, images) -> np.ndarray:
    """uint64 [n] of the names and sizes of images."""
    names, sizes = store.names, np.asarray(store.image_size).tolist()
    told = (f"{names[image]}\0{sizes[image]}".encode() for image in np.asarray(images).tolist())
    digests = b"".join(hashlib.blake2b(each, digest_size=8).digest() for each in told)
    return np.frombuffer(digests, np.uint64)


def make_codebook(store_path, out_path, list_path=None, **settings):
    """rrt.rerankers.codebook.train_codebook on all images of the store, or on those of an image list -> Codebook as
    written."""
    if not str(out_path).endswith(".npz"):
        raise InputError(f"{out_path}: the name of a codebook ends in .npz")
    images = read_image_list(list_path) if list_path else None
    with Store(store_path) as store:
        codebook = train_codebook(store, images=store.indices(images.names, images) if images else None, **settings)
    codebook.save(Path(out_path))
    return codebook
