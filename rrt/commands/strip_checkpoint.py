"""A checkpoint to pass on: the network and what its use needs, without what a resumed training needs (two thirds of the
file) nor the folders it was trained in.

    python tools/strip_checkpoint.py logs/NAME/best.pt rrt_gld_ckpts/mine.pt --half

--half keeps the weights in half precision (4.5 MB for the published network), rounded by at most one part in 2,000;
they are read as float32. The published program reads the file, too.
"""

from pathlib import Path

import torch

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError
from rrt.network.checkpoint import load_checkpoint, save_checkpoint

# What rrt.training.run, rrt.network.reranker and rrt.evaluation.run read of a checkpoint's settings.
KEPT = ("model", "scale_binning", "max_sequence_len", "selection")


class _Weights:
    """What save_checkpoint takes for a network."""

    def __init__(self, state: dict):
        self.state = state

    def state_dict(self) -> dict:
        return self.state


def strip_checkpoint(source, out, half: bool = False, overwrite: bool = False) -> Path:
    """Write ``out`` from the checkpoint ``source`` -> its path. Raises InputError where it exists, or a weight does not
    fit half precision."""
    out = Path(out)
    checkpoint = load_checkpoint(source)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; give another name or --overwrite")
    state = checkpoint.state
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise InputError(f"{source}: '{name}' holds numbers too large for half precision; leave --half out")
    settings = {name: checkpoint.settings[name] for name in KEPT if name in checkpoint.settings}
    return save_checkpoint(out, _Weights(state), settings=settings)


def main():
    parser = CommandParser(__doc__)
    parser.add_argument("source", help="checkpoint (.pt)")
    parser.add_argument("out", help="checkpoint to write (.pt)")
    parser.add_argument("--half", action="store_true", help="weights in half precision")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    args = parser.parse_args()
    path = strip_checkpoint(args.source, args.out, args.half, args.overwrite)
    print(
        f"wrote {path}: {path.stat().st_size / 2**20:.1f} MiB instead of {Path(args.source).stat().st_size / 2**20:.1f}"
    )
