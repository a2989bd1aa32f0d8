"""A checkpoint to pass on: the network and what its use needs, without what a resumed training needs (two thirds of the
file) nor the folders it was trained in.

    python tools/strip_checkpoint.py logs/NAME/best.pt rrt_gld_ckpts/mine.pt --half

--half keeps the weights in half precision (4.5 MB for the published network), rounded by at most one part in 2,000;
they are read as float32. The published program reads the file, too. OUT.safetensors is written in that format, which
search without PyTorch reads (reranker=late).
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.network.checkpoint import strip_checkpoint


def main():
    """Write the smaller checkpoint and print the sizes of both."""
    parser = CommandParser(__doc__)
    parser.add_argument("source", help="checkpoint (.pt)")
    parser.add_argument("out", help="checkpoint to write (.pt, .safetensors)")
    parser.add_argument("--half", action="store_true", help="weights in half precision")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    args = parser.parse_args()
    path = strip_checkpoint(args.source, args.out, args.half, args.overwrite)
    print(
        f"wrote {path}: {path.stat().st_size / 2**20:.1f} MiB instead of {Path(args.source).stat().st_size / 2**20:.1f}"
    )
