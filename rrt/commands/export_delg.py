"""Write a descriptor store as a folder of DELG feature files, for programs that read those.

Reads data_dir/delg_<feature_name>.h5 and writes data_dir/delg_<feature_name>/<image>.delg_global and .delg_local for
every image of it (`<image>` is its file name without folder and suffix). Values are those of the store: of a
float32 store every bit. A run that was stopped goes on where it was.

    python tools/export_delg.py with data_dir=data/oxford5k feature_name=r50_gldv2
"""

from rrt.command_line.sacred import make_experiment
from rrt.store.export import export_delg

ex = make_experiment("export_delg")


ex.add_settings(
    {
        "data_dir": ("data/oxford5k", ""),
        "feature_name": ("r50_gldv1", "names the descriptor store: delg_<feature_name>.h5"),
        "store": (lambda given: f"{given['data_dir']}/delg_{given['feature_name']}.h5", ""),
        "output": (lambda given: f"{given['data_dir']}/delg_{given['feature_name']}", "folder of the feature files"),
        "local_suffix": (".delg_local", ".delf for DELF; empty: no local descriptors"),
        "global_suffix": (".delg_global", "empty: no global descriptors"),
        "max_local": (None, "local descriptors an image at most; None: all"),
        "overwrite": (False, "replace files that stand there with other content"),
    }
)


@ex.main
def main(store, output, local_suffix, global_suffix, max_local, overwrite):
    """Write the descriptors of a store as DELG feature files."""
    written, present = export_delg(store, output, local_suffix, global_suffix, max_local, overwrite)
    print(f"wrote {written} files to {output}" + f", {present} were there" * bool(present))
