"""Turn the feature files of hloc (cvg/Hierarchical-Localization) into a descriptor store.

A feature file is an HDF5 file with a group per image (slashes in its name make nested groups) that holds keypoints [n,
2] (x, y in pixels), descriptors [D, n], scores [n], image_size [2] and global_descriptor [Dg]. Local and global
descriptors may lie in two files. Descriptors are scaled to unit length and sorted by falling score, which becomes their
attention; their scale is 1. A run that was stopped goes on where it was.

    python tools/import_hloc.py feats-superpoint.h5 data/mine/delg_superpoint.h5 --global_features feats-netvlad.h5
"""

from rrt.command_line.parser import CommandParser
from rrt.store.hloc import import_hloc
from rrt.store.importing import add_arguments, describe


def main():
    """Write the store and print what it holds."""
    parser = CommandParser(__doc__)
    parser.add_argument("features", help="feature file of the local descriptors")
    parser.add_argument("output", help="the store to write, data/<dataset>/delg_<desc_name>.h5")
    parser.add_argument("--global_features", help="feature file of the global descriptors (default: the same file)")
    add_arguments(parser)
    with import_hloc(**vars(parser.parse_args())) as store:
        print(describe(store))
