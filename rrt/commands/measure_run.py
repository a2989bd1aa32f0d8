"""Measure TREC run files (of evaluate_revisited.py with trec=True, or of another program) by Revisited ground truth.

    python tools/measure_run.py logs/NAME/trec/RRT_medium.run --data_dir data/oxford5k --ground_truth gnd_roxford5k.pkl

A run whose tag ends with _easy, _medium, _hard or _classic was made for that protocol and is measured by it alone.
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.datasets.sets import add_test_lists
from rrt.evaluation.metrics import format_table
from rrt.evaluation.trec import measure_run
from rrt.formats.revisited import load_revisited_set


def parse_arguments():
    """The command line's options, read."""
    parser = CommandParser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data_dir", default="data/oxford5k", help="folder of the test set (data/oxford5k)")
    parser.add_argument("--ground_truth", default="gnd_roxford5k.pkl", help="ground truth in it (gnd_roxford5k.pkl)")
    add_test_lists(parser)
    parser.add_argument("--distractors", action="store_true", help="images outside the gallery count as wrong ones")
    return parser.parse_args()


def main():
    """Print a table for each run."""
    args = parse_arguments()
    images = load_revisited_set(*(Path(args.data_dir) / name for name in (*args.lists, args.ground_truth)))
    for path in args.runs:
        tag, results, missing = measure_run(path, images, args.distractors)
        note = f": {missing} of {len(images.query)} queries are not in it and count as nothing found" if missing else ""
        print(path + note)
        print(format_table({tag: results}, intervals=True))
