"""The published reranking checkpoints, and the figures that the literature reports for them.

    python tools/published.py fetch r50_gldv2 rrt_gld_ckpts/r50_gldv2.pt
    python tools/published.py compare r50_gldv2 roxf logs/eval_r50_gldv2_roxf_rerank/results.json
    python tools/published.py table logs/eval_1m_r50_gldv2/*/results.json

The checkpoints lie in the authors' public repository under its own licence. `bash rrt_scripts/reproduce.sh` does
everything from the download of the images on.
"""

from rrt.command_line.parser import CommandParser
from rrt.evaluation.published import BASE_URL, EXPECTED, REPOSITORY, comparison, fetch_checkpoint, results_table


def main():
    """Fetch a checkpoint, or print expected beside measured, or a table."""
    parser = CommandParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="fetch a published checkpoint")
    compare = commands.add_parser("compare", help="print the figures of the literature beside those of an evaluation")
    for each in (fetch, compare):
        each.add_argument("descriptors", choices=EXPECTED)
    fetch.add_argument("path", help="the file to write; one that is there is left alone")
    fetch.add_argument("--base_url", default=BASE_URL, help="address above the checkpoints (default %(default)s)")
    fetch.add_argument("--sha256", metavar="HEX", help="that the file must have (default: not compared)")
    compare.add_argument("test_set", choices=("roxf", "rpar"))
    compare.add_argument("results", help="results.json of evaluate_revisited.py with the checkpoint")
    table = commands.add_parser("table", help="print the figures of several evaluations as a table")
    table.add_argument("results", nargs="+", help="results.json of evaluate_revisited.py")
    table.add_argument("--output", help="file to write the table to, too (.md)")
    args = parser.parse_args()
    if args.command == "table":
        print(results_table(args.results, args.output), end="")
        return
    if args.command == "compare":
        print(comparison(args.descriptors, args.test_set, args.results))
        return
    path = fetch_checkpoint(args.descriptors, args.path, args.base_url, args.sha256)
    print(f"{path}: the authors' checkpoint; its licence is that of {REPOSITORY}")
