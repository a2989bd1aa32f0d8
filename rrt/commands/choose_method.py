"""Which method is best on held-out landmarks: the mean of several comparisons of tools/compare.py, so that no single
draw of queries decides.

    python tools/choose_method.py logs/compare_held_out_*/comparison.json --output logs/compare_held_out.md

Prints (and writes) a Markdown table by falling mean of the Medium mAP, with the smallest and the largest.
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.evaluation.comparison_means import table_of_files
from rrt.files.atomic import write_bytes


def main():
    """Print the table, and write it where a file is named."""
    parser = CommandParser(__doc__)
    parser.add_argument("comparisons", nargs="+", help="comparison.json files of tools/compare.py")
    parser.add_argument("--output", type=Path, help="file for the table (.md)")
    args = parser.parse_args()
    text = table_of_files(args.comparisons)
    print(text, end="")
    if args.output:
        write_bytes(args.output, text.encode())
        print(f"wrote {args.output}")
