"""Global search of a Revisited test set: every gallery image ranked for every query, and the ranking measured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrt.datasets.sets import open_stores, store_path
from rrt.errors import InputError
from rrt.evaluation.metrics import ProtocolResult, evaluate
from rrt.formats.revisited import load_revisited_set
from rrt.search.exact import load_globals, query_expansion, search
from rrt.search.rows import listed_rows
from rrt.search.table import describe_origin, save_neighbors
from rrt.search.whitening import describe_whitening, load_whitening


@dataclass(frozen=True)
class RankedGallery:
    """nn_inds int64 [Q, N] and sims float32 [Q, N] by falling similarity; results {protocol: ProtocolResult}; path: the
    neighbour file written, or None."""

    nn_inds: np.ndarray
    sims: np.ndarray
    results: dict[str, ProtocolResult]
    path: Path | None


def prepare_topk_revisited(
    data_dir, feature_name, gnd_name, use_aqe=False, aqe_params=None, save_nn_inds=True, whitening=None
):
    """Rank all gallery images of the test set in data_dir for each query -> RankedGallery.

    use_aqe: search a second time with expanded queries, aqe_params = {"k": 2, "alpha": 0.3}. whitening: path of an .npz
    of tools/learn_whitening.py. Raises InputError before anything is written.
    """
    data_dir = Path(data_dir)
    aqe_params = {"k": 2, "alpha": 0.3} | (aqe_params or {})
    unknown = aqe_params.keys() - {"k", "alpha"}
    if unknown:
        raise InputError(f"aqe_params has an unknown entry {sorted(unknown)[0]!r}; it knows k and alpha")
    test_set = load_revisited_set(data_dir / "test_query.txt", data_dir / "test_gallery.txt", data_dir / gnd_name)
    store, query_store = open_stores(store_path(data_dir, feature_name))
    (queries,) = load_globals(query_store.path, test_set.query, whitening=whitening)
    path = data_dir / f"nn_inds_{feature_name}.pkl" if save_nn_inds else None
    with store, query_store:
        # Read in blocks: a gallery with a million distractors would not fit in memory.
        gallery = listed_rows(store, test_set.gallery, load_whitening(whitening) if whitening else None)
        if use_aqe:
            queries = query_expansion(queries, gallery, **aqe_params)
        sims, nn_inds = search(gallery, queries)
        results = evaluate(nn_inds, test_set.truth.gnd, num_gallery=len(gallery))
        if path:
            save_neighbors(
                path,
                nn_inds,
                describe_origin(store, test_set.query, test_set.gallery, query_store),
                {"aqe": aqe_params if use_aqe else None} | describe_whitening(whitening),
            )
    return RankedGallery(nn_inds, sims, results, path)
