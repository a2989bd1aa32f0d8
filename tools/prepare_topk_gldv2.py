"""Find the nearest neighbours of every training image among the training images, the image itself left out.

Reads data_dir/delg_<feature_name>.h5 and train_txt; writes nn_inds_<feature_name>.pkl, and in
nn_inds_<feature_name>.pkl.json what it was made from, so that it is not used with another list or other descriptors.
Finished blocks are kept in a folder beside it until all are there, so that a run that was stopped goes on where it was.

    python tools/prepare_topk_gldv2.py with feature_name=r50_gldv2
"""

import json
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rrt.errors import InputError, atomic_path, check_count
from rrt.groundtruth import save_neighbors
from rrt.lists import read_image_list
from rrt.neighbor_origin import describe_origin, digest_rows
from rrt.neighbors import describe_whitening, load_globals, search_self
from rrt.sacred_cli import make_experiment, run_sacred
from rrt.store import Store
from rrt.store_schema import first_difference


def prepare_topk_gldv2(data_dir, feature_name, train_txt="train.txt", k=100, block=1024, whitening=None):
    """Write nn_inds_<feature_name>.pkl, int64 [N, min(k, N - 1)]: positions in train_txt by falling similarity -> path.

    block: images searched, and saved, at a time. whitening: path of an .npz of tools/learn_whitening.py. Raises
    InputError when blocks of an earlier run were made with other settings or descriptors.
    """
    data_dir = Path(data_dir)
    for name, value in (("k", k), ("block", block)):
        check_count(name, value)
    images = read_image_list(data_dir / train_txt)
    store_path = data_dir / f"delg_{feature_name}.h5"
    descriptors, = load_globals(store_path, images, whitening=whitening)
    if len(images) < 2:
        raise InputError(f"{images.path}: one image has no neighbours; at least two are needed")
    path = data_dir / f"nn_inds_{feature_name}.pkl"
    with Store(store_path) as store:
        origin = describe_origin(store, images, images)
    # All descriptors, after whitening: blocks made before and after any number changed do not belong together.
    blocks = _Blocks(path, {"images": len(images), "neighbours": min(k, len(images) - 1), "block": block,
                            "descriptors": digest_rows(descriptors)})
    rows = [slice(start, min(start + block, len(images))) for start in range(0, len(images), block)]
    missing = [number for number, own in enumerate(rows) if blocks.load(number, own) is None]
    with tqdm(total=len(images), initial=len(images) - sum(rows[n].stop - rows[n].start for n in missing),
              unit="image", desc="neighbours", disable=None) as bar:
        for number in missing:
            blocks.save(number, search_self(descriptors, k, rows[number]))
            bar.update(rows[number].stop - rows[number].start)
    save_neighbors(path, np.concatenate([blocks.load(number, own) for number, own in enumerate(rows)]), origin,
                   describe_whitening(whitening))
    shutil.rmtree(blocks.folder)
    return path


class _Blocks:
    """Finished rows in <path>.parts/block-00012.npy, with the settings they were made with in settings.json."""

    def __init__(self, path, settings):
        self.folder = path.with_name(path.name + ".parts")
        self.width = settings["neighbours"]
        manifest = self.folder / "settings.json"
        if manifest.exists():
            remedy = f"delete the folder {self.folder} to start again"
            try:
                difference = first_difference(json.loads(manifest.read_text(encoding="utf-8")), settings)
            except (ValueError, AttributeError):
                raise InputError(f"{manifest}: damaged; {remedy}") from None
            if difference:
                name, old, new = difference
                raise InputError(f"{self.folder}: its blocks were made with {name} = {old}, this run has {new};"
                                 f" {remedy}")
        else:
            with atomic_path(manifest) as temporary:
                temporary.write_text(json.dumps(settings), encoding="utf-8")

    def load(self, number, rows):
        """The block's neighbours, or None when it is not there whole."""
        try:
            table = np.load(self._path(number), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return table if table.shape == (rows.stop - rows.start, self.width) else None

    def save(self, number, table):
        with atomic_path(self._path(number)) as temporary:
            np.save(temporary, table)

    def _path(self, number):
        return self.folder / f"block-{number:05d}.npy"


ex = make_experiment("prepare_topk_gldv2")


@ex.config
def config():
    feature_name = "r50_gldv1"  # names the descriptor store: delg_<feature_name>.h5
    data_dir = "data/gldv2"
    train_txt = "train.txt"  # image list in data_dir
    k = 100  # neighbours an image
    block = 1024  # images searched, and saved, at a time
    whitening = None  # an .npz of tools/learn_whitening.py


@ex.main
def main(feature_name, data_dir, train_txt, k, block, whitening):
    """Find the k nearest training images of every training image."""
    path = prepare_topk_gldv2(data_dir, feature_name, train_txt, k, block, whitening)
    print(f"wrote {path}")


if __name__ == "__main__":
    run_sacred(ex)
