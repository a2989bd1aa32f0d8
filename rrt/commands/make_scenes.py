"""Makes the synthetic landmark scenes: `python tools/make_scenes.py --out data` (see rrt/scenes/scenes.py)."""

import argparse

from rrt.command_line.parser import CommandParser
from rrt.files.locks import owned
from rrt.files.machine import usable_cores
from rrt.scenes.scenes import SceneSettings, make_scenes

HELP = {
    "num_train_landmarks": "training landmarks",
    "views": "images of each training landmark",
    "num_test_landmarks": "test landmarks; the last of each family has no query",
    "test_views": "gallery images of each test landmark",
    "queries": "query images of each test landmark",
    "num_distractors": "further buildings in the gallery",
    "distractor_views": "images of each of these",
    "family": "look-alikes in a family",
    "size": "longest side of an image in pixels",
    "difficulty": "0..1: range of viewpoints, light, occlusion; shared ornaments",
    "seed": "the same seed gives the same images",
}


def main():
    """Draw what is missing of the scenes and print their folders."""
    parser = CommandParser(__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", default="data", help="folder for scenes_train and scenes_test")
    parser.add_fields(SceneSettings, HELP)
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes")
    arguments = vars(parser.parse_args())
    out, num_workers = arguments.pop("out"), arguments.pop("num_workers")
    with owned(out, "drawing there"):
        folders = make_scenes(out, SceneSettings(**arguments), num_workers)
    print("\n".join(f"wrote {folder}" for folder in folders))
