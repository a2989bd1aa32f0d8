"""Turn plain NumPy arrays of descriptors into a descriptor store.

ARRAYS is a .npy file of global descriptors [N, Dg], an .npz file with the arrays below, or a folder that holds them as
.npy files, which are read through memory maps whatever their size:

    global       [N, Dg]
    names        [N] text, optional: image names; else give --names, or --list with a line for each row
    image_size   [N, 2] width, height, optional: else give --list or --image_size
    descriptors  [M, Dl] local descriptors, optional, with offsets and keypoints; or [N, n, Dl], n for every image
    offsets      [N + 1]: image i owns rows offsets[i] to offsets[i + 1]
    keypoints    [M, 2] or [N, n, 2], x and y in pixels
    attention    [M] or [N, n], optional: descriptors are sorted by falling attention; without it they keep their order
    scales       [M] or [N, n], optional: 1 / image scale, without it 1

Descriptors are scaled to unit length. --list takes the images of an image list alone, in its order. A run that was
stopped goes on where it was.

    python tools/import_arrays.py globals.npy data/mine/delg_clip.h5 --names names.txt --image_size 640 480
"""

from rrt.command_line.parser import CommandParser
from rrt.store.arrays import import_arrays
from rrt.store.importing import add_arguments, describe


def main():
    """Write the store and print what it holds."""
    parser = CommandParser(__doc__)
    parser.add_argument("arrays", help="a .npy, an .npz or a folder of .npy files")
    parser.add_argument("output", help="the store to write, data/<dataset>/delg_<desc_name>.h5")
    parser.add_argument("--names", dest="names_path", help="text file with the name of each row's image, a line each")
    add_arguments(parser)
    with import_arrays(**vars(parser.parse_args())) as store:
        print(describe(store))
