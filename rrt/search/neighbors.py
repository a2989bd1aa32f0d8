"""The table of nearest neighbours of every training image, made in blocks that a later run goes on with."""

import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from rrt.errors import InputError, check_count
from rrt.files.atomic import atomic_path, parse_json, write_json
from rrt.files.cluster import ATTEMPTS, run_on_ray
from rrt.files.locks import owned
from rrt.formats.lists import read_image_list
from rrt.progress import bar
from rrt.search.rows import DescriptorRows, open_rows, summarize_rows
from rrt.search.self_search import SelfSearch, check_search_settings, plan_memory
from rrt.search.table import describe_origin, save_neighbors
from rrt.search.whitening import describe_whitening
from rrt.store.schema import first_difference
from rrt.store.store import Store

MANIFEST = "settings.json"


def prepare_topk_gldv2(
    data_dir,
    feature_name,
    train_txt="train.txt",
    k=100,
    block=4096,
    whitening=None,
    first_pass="auto",
    device="auto",
    memory_mb=2000,
    ray_address=None,
):
    """Write nn_inds_<feature_name>.pkl, int64 [N, min(k, N - 1)]: positions in train_txt by falling similarity -> path.

    block: images searched, and saved, at a time. whitening: path of an .npz of tools/learn_whitening.py. first_pass,
    device, memory_mb: of rrt.search.self_search.SelfSearch; the table does not depend on them. ray_address: of a Ray
    cluster whose workers search the blocks, each with memory_mb. Raises InputError when
    blocks of an earlier run were made with other settings or descriptors.
    """
    data_dir = Path(data_dir)
    check_count("block", block)
    check_search_settings(k, first_pass, device, memory_mb)
    images = read_image_list(data_dir / train_txt)
    store_path = data_dir / f"delg_{feature_name}.h5"
    path = data_dir / f"nn_inds_{feature_name}.pkl"
    folder = path.with_name(path.name + ".parts")
    with Store(store_path) as store, ExitStack() as held:
        if not store.global_dim:
            raise InputError(f"{store_path}: holds no global descriptors; import or extract them too")
        store.indices(images.names, images)  # refuses a name that the store lacks
        if len(images) < 2:
            raise InputError(f"{images.path}: one image has no neighbours; at least two are needed")
        held.enter_context(owned(folder, "searching these neighbours"))
        rows, summary = _read_rows(store, images, whitening, folder, (block, memory_mb, k))
        # Of all descriptors, after whitening: blocks made before and after any number changed do not belong together.
        blocks = _Blocks(
            folder,
            {
                "images": len(images),
                "neighbours": min(k, len(images) - 1),
                "block": block,
                "descriptors": summary.sha256,
            },
        )
        parts = rows.blocks(block)
        missing = [number for number, own in enumerate(parts) if blocks.load(number, own) is None]
        if missing:
            how = first_pass, device, memory_mb, block, summary
            if ray_address:
                whitened = folder / "whitened.npy" if whitening else None
                shared = store, store.indices(images.names), whitened, folder, k, *how
                _search_on_ray(ray_address, shared, blocks, parts, missing)
            else:
                _search_blocks(SelfSearch(rows, k, folder, *how), blocks, parts, missing)
        table = np.empty((len(images), min(k, len(images) - 1)), dtype=np.int64)
        for number, own in enumerate(parts):
            found = blocks.load(number, own)
            assert found is not None  # searched above
            table[own] = found
        save_neighbors(path, table, describe_origin(store, images, images), describe_whitening(whitening))
        shutil.rmtree(folder)
    return path


def _read_rows(store, images, whitening, folder, memory):
    """DescriptorRows and their summary; what cannot be searched leaves nothing behind."""
    try:
        rows = open_rows(store, images, whitening, folder)
        plan_memory(rows.shape, *memory)
        return rows, summarize_rows(rows, store.path, images.names)
    except InputError:
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _search_blocks(search, blocks, parts, missing):
    """Search and save the blocks numbered `missing`; images already there count as done, not for the time left."""
    total = parts[-1].stop
    done = total - sum(parts[number].stop - parts[number].start for number in missing)
    with bar(what=f"neighbours ({search.kind})", unit="image", total=total, initial=done, smoothing=0.1) as progress:
        for number in missing:
            advance = _advance(progress, done, parts[number].stop - parts[number].start)
            blocks.save(number, search.search(parts[number], advance))
            done += parts[number].stop - parts[number].start
            progress.update(done - progress.n)


def _search_on_ray(address, shared, blocks, parts, missing):
    todo = [(number, parts[number]) for number in missing]
    left = sum(part.stop - part.start for _, part in todo)
    with bar(what="neighbours (Ray)", unit="image", total=parts[-1].stop, initial=parts[-1].stop - left) as shown:

        def take(part, found):
            blocks.save(part[0], found)
            shown.update(len(found))

        run_on_ray(_open_search, shared, todo, address, take, _gave_up)


def _open_search(shared):
    """The search of a worker; its rounded rows lie in a folder of its own."""
    store, index, whitened, folder, k, *how = shared
    if whitened:
        rows = DescriptorRows(np.load(whitened, mmap_mode="r"))
    else:
        rows = DescriptorRows(store.global_descriptors, index)
    search = SelfSearch(rows, k, folder / f"worker-{socket.gethostname()}-{os.getpid()}", *how)
    return lambda part: search.search(part[1])


def _gave_up(part, reason):
    return InputError(
        f"neighbours: block {part[0]} failed {ATTEMPTS} times: {reason}; finished blocks are kept, run again"
    )


def _advance(progress, done: int, size: int):
    """What moves the bar on from ``done`` by shares of a block of ``size`` images."""
    shown = 0.0

    def advance(share):
        nonlocal shown
        shown += share * size
        progress.update(round(done + shown) - progress.n)

    return advance


class _Blocks:
    """Finished rows in <path>.parts/block-00012.npy, with the settings they were made with in settings.json.
    Rounded and whitened descriptors lie beside them; they are made anew at every start."""

    def __init__(self, folder, settings):
        self.folder = folder
        self.width = settings["neighbours"]
        manifest = self.folder / MANIFEST
        # A note alone, of a run that ended before its first block, binds nobody.
        if manifest.exists() and any(folder.glob("block-*.npy")):
            remedy = f"delete the folder {self.folder} to start again"
            try:
                difference = first_difference(parse_json(manifest.read_bytes()), settings)
            except (ValueError, AttributeError):
                raise InputError(f"{manifest}: damaged; {remedy}") from None
            if difference:
                name, old, new = difference
                raise InputError(
                    f"{self.folder}: its blocks were made with {name} = {old}, this run has {new}; {remedy}"
                )
        else:
            write_json(manifest, settings)

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
