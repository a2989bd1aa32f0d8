"""Rank the whole gallery of a Revisited test set for every query by its global descriptors, and measure the ranking.

Reads data_dir/delg_<feature_name>.h5, test_query.txt, test_gallery.txt and gnd_name; writes nn_inds_<feature_name>.pkl,
and in nn_inds_<feature_name>.pkl.json what it was made from, so that it is not used with other lists or descriptors.
Cropped queries whose whole images are in the gallery, as those of the classic Oxford5k, lie in a store of their own,
delg_<feature_name>_queries.h5, which is read where it is there.

    python tools/prepare_topk_revisited.py with dataset_name=oxford5k feature_name=r50_gldv2 gnd_name=gnd_roxford5k.pkl
"""

from rrt.command_line.sacred import make_experiment
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.evaluation.metrics import format_table

ex = make_experiment("prepare_topk_revisited")

ex.add_settings(
    {
        "dataset_name": ("oxford5k", ""),
        "feature_name": ("r50_gldv1", "names the descriptor store: delg_<feature_name>.h5"),
        "gnd_name": ("gnd_roxford5k.pkl", "ground truth in data_dir"),
        "use_aqe": (False, "query expansion"),
        "aqe_params": ({"k": 2, "alpha": 0.3}, ""),
        "save_nn_inds": (True, ""),
        "data_dir": (lambda given: f"data/{given['dataset_name']}", ""),
        "whitening": (None, "an .npz of tools/learn_whitening.py"),
    }
)


@ex.main
def main(feature_name, gnd_name, use_aqe, aqe_params, save_nn_inds, data_dir, whitening):
    """Rank the gallery for every query and print mAP, mP@k and mR@k of Easy, Medium and Hard."""
    ranked = prepare_topk_revisited(data_dir, feature_name, gnd_name, use_aqe, aqe_params, save_nn_inds, whitening)
    method = "global" + " whitened" * bool(whitening) + " aQE" * use_aqe
    print(f"{len(ranked.nn_inds)} queries, {ranked.nn_inds.shape[1]} gallery images")
    print(format_table({method: ranked.results}))
    if ranked.path:
        print(f"wrote {ranked.path}")
    return {f"{protocol[0].upper()}_map": round(100 * result.map, 2) for protocol, result in ranked.results.items()}
