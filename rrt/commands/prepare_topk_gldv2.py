"""Find the nearest neighbours of every training image among the training images, the image itself left out.

Reads data_dir/delg_<feature_name>.h5 and train_txt; writes nn_inds_<feature_name>.pkl, and in
nn_inds_<feature_name>.pkl.json what it was made from, so that it is not used with another list or other descriptors.
Finished blocks are kept in a folder beside it until all are there, so that a run that was stopped goes on where it was.
The table is exact whatever the settings of speed and memory, which may change between a stop and the next start.

    python tools/prepare_topk_gldv2.py with feature_name=r50_gldv2
"""

from rrt.command_line.sacred import make_experiment

ex = make_experiment("prepare_topk_gldv2", uses=["rrt.search.neighbors"])

ex.add_settings(
    {
        "feature_name": ("r50_gldv1", "names the descriptor store: delg_<feature_name>.h5"),
        "data_dir": ("data/gldv2", ""),
        "train_txt": ("train.txt", "image list in data_dir"),
        "k": (100, "neighbours an image"),
        "block": (4096, "images searched, and saved, at a time"),
        "whitening": (None, "an .npz of tools/learn_whitening.py"),
        "first_pass": (
            "auto",
            "numbers that find candidates: float32, faiss, bfloat16, float16, int8; auto: the fastest here",
        ),
        "device": ("auto", "of the first pass: auto, cpu or cuda"),
        "memory_mb": (2000, "of the search's arrays, in millions of bytes"),
        "ray_address": (None, "search on a Ray cluster: its address, auto for the one of this machine, local"),
    }
)


@ex.main
def main(feature_name, data_dir, train_txt, k, block, whitening, first_pass, device, memory_mb, ray_address):
    """Find the k nearest training images of every training image."""
    from rrt.search.neighbors import prepare_topk_gldv2

    path = prepare_topk_gldv2(
        data_dir, feature_name, train_txt, k, block, whitening, first_pass, device, memory_mb, ray_address
    )
    print(f"wrote {path}")
