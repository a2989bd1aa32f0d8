"""Turn a folder of DELG feature files and the image lists into a descriptor store.

Reads data_dir/delg_<feature_name>/<image>.delg_global and .delg_local for every image of the lists (`<image>` is
its file name without folder and suffix) and writes data_dir/delg_<feature_name>.h5. A run that was stopped goes on
where it was. Rows that are not of unit length, which DELG's own are, are scaled to it.

    python tools/import_delg.py with data_dir=data/oxford5k feature_name=r50_gldv2
    python tools/import_delg.py with data_dir=data/gldv2 feature_name=r50_gldv2 lists=train.txt local_dtype=float32
    python tools/import_delg.py with data_dir=data/oxford5k feature_name=delf local_suffix=.delf global_suffix=
"""

from copy import deepcopy

from rrt.command_line.sacred import make_experiment
from rrt.store.importing_delg import import_delg

ex = make_experiment("import_delg")
ex.add_settings(
    {
        "data_dir": ("data/oxford5k", ""),
        "feature_name": ("r50_gldv1", "names the descriptor store: delg_<feature_name>.h5"),
        "features_dir": (
            lambda given: f"{given['data_dir']}/delg_{given['feature_name']}",
            "folder of the feature files",
        ),
        "output": (lambda given: f"{given['data_dir']}/delg_{given['feature_name']}.h5", ""),
        "lists": (
            None,
            "image list or lists in data_dir; None: those of train.txt, test_query.txt, test_gallery.txt there are",
        ),
        "local_suffix": (".delg_local", ".delf for DELF; empty: no local descriptors"),
        "global_suffix": (".delg_global", "empty: no global descriptors, so no search"),
        "local_dtype": ("float16", "or float32, which keeps every bit"),
        "max_local": (None, "local descriptors an image at most; None: all"),
        "allow_missing": (False, "list images without usable files in <output>.skipped.csv instead of stopping"),
        "overwrite": (False, "delete an existing store and its parts first"),
    }
)


@ex.main
def main(_config):
    """Turn DELG feature files and image lists into a descriptor store."""
    settings = deepcopy(_config)
    settings.pop("seed", None)  # Sacred's own
    imported = import_delg(**settings)
    print(
        f"{imported.path}: complete, nothing to do"
        if imported.was_there
        else f"wrote {imported.path}: {imported.num_images} images"
    )
    for image in imported.skipped:
        print(f"skipped {image.name}: {image.reason}")
