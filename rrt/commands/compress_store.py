"""Make a descriptor store with fewer bytes an image of another: the same images in the same order.

    python tools/compress_store.py data/oxford5k/delg_r50_gldv2.h5 data/oxford5k/delg_r50_int8.h5 --local_dtype int8
    --max_local 50
    python tools/compress_store.py data/oxford5k/delg_r50_gldv2.h5 data/oxford5k/delg_r50_bits.h5 --local_dtype bits
        --train data/gldv2/delg_r50_gldv2.h5 --train_list data/gldv2/train.txt

Every reranker reads the new store like any other. --local_dtype bits keeps 128 bits of each local descriptor, by ITQ
(Gong and Lazebnik, CVPR 2011) learned on the descriptors of --train, or without it by a random rotation. Prints the
bytes of an image before and after.
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError
from rrt.formats.lists import read_image_list
from rrt.rerankers.codebook import sample_descriptors
from rrt.store.binary_codes import KINDS, learn_codes, random_codes
from rrt.store.compress import compress_store
from rrt.store.store import Store
from rrt.store.values import GLOBAL_DTYPES, LOCAL_DTYPES


def make_codes(local_dim, train=None, train_list=None, kind="itq", bits=128, sample=50_000, seed=0, iterations=50):
    """Codes for descriptors of ``local_dim`` dimensions -> (BinaryCodes, what a store shall say of them)."""
    note = {"codes": kind if train else "random, not learned", "bits": bits, "seed": seed}
    if not train:
        return random_codes(local_dim, bits, seed), note
    if sample < 1:
        raise InputError(f"--sample {sample}: give at least 1")
    with Store(train) as store:
        if store.local_dim != local_dim:
            raise InputError(
                f"{train}: local descriptors of {store.local_dim} dimensions, those to be coded have {local_dim}; "
                "learn the codes on descriptors of the same model"
            )
        images = read_image_list(train_list) if train_list else None
        rows = sample_descriptors(store, sample, store.indices(images.names, images) if images else None, seed)
    note |= {
        "learned_on": str(train),
        "learned_list": train_list and str(train_list),
        "descriptors": len(rows),
        "iterations": iterations if kind == "itq" else 0,
    }
    return learn_codes(rows, bits, kind, seed, iterations), note


def make_store(source, out, local_dtype=None, max_local=None, global_dtype=None, overwrite=False, **coding):
    """rrt.store.compress.compress_store of the store at ``source`` -> (path, bytes of an image before, after). coding:
    what make_codes takes, for local_dtype "bits"."""
    out = Path(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; give another name or --overwrite")
    if max_local is not None and max_local < 0:
        raise InputError(f"--max_local {max_local}: give 0 or more")
    if local_dtype != "bits" and (coding.get("train") or coding.get("train_list")):
        raise InputError("--train is for --local_dtype bits alone; leave it out, or give that, too")
    if coding.get("train_list") and not coding.get("train"):
        raise InputError("--train_list names images of the store of --train; give that, too")
    with Store(source) as store:
        codes, note = (None, None)
        if local_dtype == "bits" and not store.codes:
            codes, note = make_codes(store.local_dim, **coding)
        compress_store(store, out, local_dtype, max_local, global_dtype, codes, note)
        return out, store.path.stat().st_size / len(store), out.stat().st_size / len(store)


def main():
    parser = CommandParser(__doc__)
    parser.add_argument("source", help="descriptor store (.h5)")
    parser.add_argument("out", help="store to write (.h5)")
    parser.add_argument(
        "--local_dtype", choices=[*LOCAL_DTYPES, "bits"], help="of the local descriptors (default: as they are)"
    )
    parser.add_argument(
        "--max_local", type=int, help="local descriptors kept of an image, those of highest attention (default: all)"
    )
    parser.add_argument(
        "--global_dtype", choices=GLOBAL_DTYPES, help="of the global descriptors (default: as they are)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    coding = parser.add_argument_group("with --local_dtype bits")
    coding.add_argument("--train", help="store to learn the codes on, of training images (default: a random rotation)")
    coding.add_argument("--train_list", help="images of --train to learn on (default: all)")
    coding.add_argument(
        "--kind", choices=KINDS, default="itq", help="the turn of the principal directions (default %(default)s)"
    )
    coding.add_argument(
        "--bits", type=int, default=128, help="bits of a descriptor, a multiple of 8 (default %(default)s)"
    )
    coding.add_argument("--sample", type=int, default=50_000, help="descriptors learned from (default %(default)s)")
    coding.add_argument("--seed", type=int, default=0, help="of the choice and of the rotation (default %(default)s)")
    coding.add_argument("--iterations", type=int, default=50, help="of ITQ (default %(default)s)")
    arguments = vars(parser.parse_args())
    out, before, after = make_store(**arguments)
    print(f"wrote {out}: {after:,.0f} bytes an image instead of {before:,.0f}")
