"""Measure TREC run files (of evaluate_revisited.py with trec=True, or of another program) by Revisited ground truth,
and answers to the tasks of Google Landmarks v2.

    python tools/measure_run.py logs/NAME/trec/RRT_medium.run --data_dir data/oxford5k --ground_truth gnd_roxford5k.pkl
    python tools/measure_run.py logs/NAME/trec/RRT_easy.run --measure gldv2 --data_dir data/gldv2_test \\
        --ground_truth gnd_gldv2.pkl
    python tools/measure_run.py answers.csv --solution retrieval_solution_v2.1.csv --usages Private

A run whose tag ends with _easy, _medium, _hard or _classic was made for that protocol and is measured by it alone.
--measure gldv2: mAP@100 and precision. --solution: of answers as they are handed in (`id,images` or `id,landmarks`),
for recognition GAP; docs/protocol.md 6.4 has the formulas.
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.datasets.sets import add_test_lists
from rrt.evaluation.gldv2 import measure_answers, measure_lists
from rrt.evaluation.metrics import format_table, percent
from rrt.evaluation.trec import measure_run
from rrt.formats.gldv2 import USAGES
from rrt.formats.revisited import load_revisited_set


def parse_arguments():
    """The command line's options, read."""
    parser = CommandParser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data_dir", default="data/oxford5k", help="folder of the test set (data/oxford5k)")
    parser.add_argument("--ground_truth", default="gnd_roxford5k.pkl", help="ground truth in it (gnd_roxford5k.pkl)")
    add_test_lists(parser)
    parser.add_argument("--distractors", action="store_true", help="images outside the gallery count as wrong ones")
    parser.add_argument("--measure", choices=("revisited", "gldv2"), default="revisited", help="(%(default)s)")
    parser.add_argument(
        "--solution", metavar="CSV", help="retrieval_solution_v2.1.csv or recognition_solution_v2.1.csv, without lists"
    )
    parser.add_argument("--usages", nargs="+", choices=USAGES, default=USAGES, help="its rows that are queries (all)")
    return parser.parse_args()


def main():
    """Print a table for each run, or its figures."""
    args = parse_arguments()
    if args.solution:
        for path in args.runs:
            print_figures(path, *measure_answers(path, args.solution, args.usages))
        return
    images = load_revisited_set(*(Path(args.data_dir) / name for name in (*args.lists, args.ground_truth)))
    for path in args.runs:
        if args.measure == "gldv2":
            print_figures(path, *measure_lists(path, images, args.distractors))
            continue
        tag, results, missing = measure_run(path, images, args.distractors)
        note = f": {missing} of {len(images.query)} queries are not in it and count as nothing found" if missing else ""
        print(path + note)
        print(format_table({tag: results}, intervals=True))


def print_figures(path: str, figures: dict[str, float], note: str) -> None:
    """A line for each figure, in percent and as a fraction."""
    print(f"{path}: {note}")
    for name, value in figures.items():
        print(f"{name}: {percent(value)} ({value:.6f})")
