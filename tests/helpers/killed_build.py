"""A build of an index with made-up descriptors, slowly, to be killed: python killed_build.py INDEX PHOTOS SECONDS"""

import sys
from functools import partial

import photo_folders

from rrt.photo_index import extraction

extraction.extract = partial(photo_folders.fake_extract, seconds=float(sys.argv[3]))
extraction.describe_extraction = photo_folders.fake_description
photo_folders.build(sys.argv[1], sys.argv[2], whiten=4)
