"""A descriptor store as a folder of DELG feature files, `.delg_global` and `.delg_local`, for programs that read
those."""

from pathlib import Path

import numpy as np

from rrt.errors import InputError, check_count
from rrt.files.atomic import write_bytes
from rrt.files.locks import owned
from rrt.formats.delf import LocalFeatures, serialize_datum, serialize_features
from rrt.progress import bar
from rrt.store.store import Store


def export_delg(
    store_path, output, local_suffix=".delg_local", global_suffix=".delg_global", max_local=None, overwrite=False
):
    """Write the files of every image of a store to the folder `output` -> (files written, files that were there).

    local_suffix, global_suffix: an empty one writes no such files. max_local: local descriptors an image at most.
    Raises InputError when two images would share a file, and for a file that is there with other content, unless
    overwrite is set.
    """
    output = Path(output)
    if max_local is not None:
        check_count("max_local", max_local)
    written = present = 0
    with owned(output, "writing there"):
        with Store(store_path) as store:
            stems = _stems(store)
            for i, stem in enumerate(bar(stems, f"export {store.path.name}", "image")):
                contents = {}
                if global_suffix and store.global_dim:
                    contents[global_suffix] = serialize_datum(store.global_descriptors[i])
                if local_suffix:
                    contents[local_suffix] = _local_file(store.read(i, max_local))
                for suffix, content in contents.items():
                    path = output / f"{stem}{suffix}"
                    if not overwrite and path.exists():
                        _refuse_other_content(path, content)
                        present += 1
                    else:
                        write_bytes(path, content)
                        written += 1
    return written, present


def _stems(store):
    owners = {}
    for name in store.names:
        owner = owners.setdefault(Path(name).stem, name)
        if owner != name:
            raise InputError(
                f"{store.path}: '{owner}' and '{name}' would have one file, {Path(name).stem}; such a store "
                "cannot be exported to one folder"
            )
    return list(owners)


def _local_file(local):
    return serialize_features(
        LocalFeatures(local.descriptors, local.keypoints, local.scales, local.attention, np.zeros_like(local.scales))
    )


def _refuse_other_content(path, content):
    if path.read_bytes() != content:
        raise InputError(
            f"{path}: is there with other content; give another folder with output=..., or replace it with "
            "overwrite=True"
        )
