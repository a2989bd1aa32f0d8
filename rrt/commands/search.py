"""Search in your own photographs: which of them show what is in an image?

    python tools/search.py build ~/Pictures --index ~/pictures.index     # again: takes in what has changed since
    python tools/search.py query ~/pictures.index holiday/tower.jpg --html found.html
    python tools/search.py query ~/pictures.index new.jpg --crop 100,50,400,380
    python tools/search.py serve ~/pictures.index                        # a page for the browser, on this machine alone
    python tools/search.py duplicates ~/pictures.index --html copies.html  # copies of photographs; none is deleted
    python tools/search.py info ~/pictures.index
    python tools/search.py measure INDEX --query_list test_query.txt --gallery_list test_gallery.txt \\
        --ground_truth gnd.pkl --image_dir D

Photographs are described by the shipped model lite0 unless --model names another, searched exactly by global
descriptors and reranked. What an interrupted build has finished is not done again. COMMAND --help has the options.
"""

import argparse
import json
import sys
from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import check_count, check_least
from rrt.files.atomic import write_bytes
from rrt.files.images import parse_box


def add_build(commands):
    """The options of ``build``."""
    from rrt.photo_index.extraction import add_extraction_options

    p = commands.add_parser("build", help="make an index of a folder, or bring it up to date")
    p.add_argument("photos", help="folder of photographs; sub-folders belong to it, hidden ones do not")
    p.add_argument("--index", required=True, metavar="INDEX_DIR", help="folder of the index")
    p.add_argument("--list", metavar="FILE", help="only the photographs of an image list (path,label,width,height)")
    p.add_argument(
        "--follow_links",
        action=argparse.BooleanOptionalAction,
        help="follow links to folders and out of the folder (default: as the index does, at first not)",
    )
    p.add_argument(
        "--exclude",
        action="append",
        metavar="PATTERN",
        help="leave out files and folders of this name or path below PHOTOS (*, ?, [...]); may be given several times "
        "(default: as the index does, at first none; '': none any more); hidden ones, @eaDir, #recycle and __MACOSX "
        "are left out in any case",
    )
    p.add_argument(
        "--watch", action="store_true", help="go on following the folder: bring the index up to date after each change"
    )
    p.add_argument("--moved", action="store_true", help="the folder of photographs was moved or renamed")
    p.add_argument("--rehash", action="store_true", help="read every file again instead of trusting its size and time")
    p.add_argument(
        "--num_workers", type=int, default=0, help="processes that describe images (default: one a core or GPU)"
    )
    white = p.add_argument_group("whitening of global descriptors", "default: as it is in the index, at first none")
    white = white.add_mutually_exclusive_group()
    white.add_argument("--whitening", metavar="FILE", help="one of tools/learn_whitening.py")
    white.add_argument(
        "--whiten",
        type=int,
        metavar="DIM",
        help="learn one on the index, again with every update; at most DIM dimensions",
    )
    white.add_argument("--no_whitening", action="store_true", help="none any more")
    p.add_argument(
        "--power", type=float, default=0.5, help="of --whiten: 0.5 whitens, 0 only turns (default %(default)s)"
    )
    add_extraction_options(p)
    p.set_defaults(run=build)


def add_query(commands):
    """The options of ``query``."""
    p = commands.add_parser("query", help="the photographs most like an image")
    p.add_argument("index", metavar="INDEX_DIR")
    p.add_argument(
        "picture", help="a file from anywhere, or the name of a photograph of the index, which is then left out"
    )
    p.add_argument("--crop", metavar="X1,Y1,X2,Y2", help="search for this box alone, pixels of the upright image")
    p.add_argument("-k", type=int, default=20, help="results (default %(default)s)")
    _add_ranking(p)
    p.add_argument("--html", metavar="FILE", help="write a page with the results and their thumbnails")
    p.add_argument("--json", metavar="FILE", help="write the results as JSON; - prints them instead of the table")
    p.set_defaults(run=query)


def add_serve(commands):
    """The options of ``serve``."""
    p = commands.add_parser("serve", help="a web page for searching")
    p.add_argument("index", metavar="INDEX_DIR")
    p.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s: this machine alone)")
    p.add_argument(
        "--watch", action="store_true", help="follow the folder of photographs, too: the page shows what changes"
    )
    p.add_argument("--port", type=int, default=8000, help="(default %(default)s; 0: any free one)")
    p.add_argument(
        "--allow_host", action="append", default=[], metavar="NAME", help="a further name the page may be called by"
    )
    p.add_argument(
        "--token",
        help="asked of whoever opens the page, once: /?token=TOKEN (default: RRT_TOKEN of the environment; else a new "
        "one where --host lets other machines in, and none where it does not)",
    )
    p.add_argument(
        "--deadline", type=float, default=120, help="seconds until an answer has to begin (default %(default)s)"
    )
    p.add_argument("--max_upload_mb", type=float, default=32, help="largest image file taken (default %(default)s)")
    p.add_argument("--max_megapixels", type=float, default=80, help="largest image taken (default %(default)s)")
    p.add_argument("-k", type=int, default=30, help="results (default %(default)s)")
    _add_ranking(p)
    p.set_defaults(run=serve)


def add_duplicates(commands):
    """The options of ``duplicates``."""
    p = commands.add_parser("duplicates", help="photographs that are copies of each other; none is deleted")
    p.add_argument("index", metavar="INDEX_DIR")
    p.add_argument("--html", metavar="FILE", help="write a page with the groups and their thumbnails")
    p.add_argument("--json", metavar="FILE", help="write the groups as JSON; - prints them instead of the table")
    p.set_defaults(run=duplicates)


def add_measure(commands):
    """The options of ``measure``."""
    p = commands.add_parser("measure", help="how often the first result is right, on labelled images")
    p.add_argument("index", metavar="INDEX_DIR", help="index with the gallery's images")
    p.add_argument("--query_list", required=True)
    p.add_argument("--gallery_list", required=True)
    p.add_argument("--ground_truth", required=True, help="Revisited ground truth (.pkl, .json, .mat)")
    p.add_argument("--image_dir", required=True, help="the folder the queries' names are relative to")
    p.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    _add_ranking(p)
    p.set_defaults(run=run_measure)


def add_info(commands):
    """The options of ``info``."""
    p = commands.add_parser("info", help="what an index holds")
    p.add_argument("index", metavar="INDEX_DIR")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(run=info)


def _add_ranking(p):
    how = p.add_argument_group("reranking")
    how.add_argument(
        "--method",
        help="late (default with lite0), maxsim, rrt (default with --reranker), geometric or another method of "
        "rrt.rerankers, a chain of them as a+b, with settings as geometric[num=50,border=0], or none (default with "
        "other models)",
    )
    how.add_argument("--reranker", metavar="CHECKPOINT", help="checkpoint of rrt")
    how.add_argument(
        "--fusion", metavar="FILE", help="fusion.json of tools/tune_fusion.py: blend with the global similarity"
    )
    how.add_argument(
        "--calibration",
        metavar="FILE",
        help="one of tools/calibrate.py: probabilities beside the scores (default: that of the checkpoint, or the "
        "shipped one of the default with lite0)",
    )
    how.add_argument(
        "--max_local", type=int, default=100, help="local descriptors that rrt reads of an image (default %(default)s)"
    )
    how.add_argument("--num_rerank", type=int, help="candidates that the last method reranks (default: its own number)")
    how.add_argument(
        "--second_look",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare the pictures themselves where the first answer is unsure (default: yes)",
    )


def build(args):
    """Makes an index, or brings it up to date, and tells what was done."""
    from rrt.photo_index.extraction import flags_of
    from rrt.photo_index.summary import lines_of_build
    from rrt.photo_index.update import BuildSettings, update

    for name, least in (("num_workers", 0), ("whiten", 1), ("power", 0)):
        check_least(f"--{name}", getattr(args, name), least)
    settings = BuildSettings(
        flags=tuple(flags_of(args)),
        whitening=args.whitening,
        whiten=args.whiten,
        power=args.power,
        no_whitening=args.no_whitening,
        image_list=args.list,
        follow_links=args.follow_links,
        exclude=None if args.exclude is None else tuple(filter(None, args.exclude)),
        moved=args.moved,
        rehash=args.rehash,
        num_workers=args.num_workers,
    )
    try:
        print("\n".join(lines_of_build(args.index, update(args.index, args.photos, settings))), flush=True)
    except KeyboardInterrupt:
        print(f"stopped; what is described is kept in {args.index}, the same command goes on", file=sys.stderr)
        raise
    if args.watch:
        from rrt.photo_index.watch import Watch, following

        # The index remembers the rest.
        again = BuildSettings(image_list=args.list, num_workers=args.num_workers)
        following(Watch(args.index, args.photos, again, lambda line: print(line, flush=True)))


def query(args):
    """Prints and writes the photographs most like an image."""
    from rrt.photo_index.shell import answer_query

    check_count("k", args.k)
    box = parse_box(args.crop, "--crop") if args.crop else None
    index, ranker, answer, note = answer_query(args.index, args.picture, box, args.k, args)
    from rrt.photo_index.report import as_html, as_json, as_text

    if note:
        print(f"note: {note}", file=sys.stderr)
    found = json.dumps(as_json(index, answer, ranker), indent=1, ensure_ascii=False)
    print(found if args.json == "-" else as_text(index, answer, ranker))
    if args.html:
        _write(args.html, as_html(index, answer, ranker))
    if args.json and args.json != "-":
        _write(args.json, found + "\n")


def _write(path, text):
    write_bytes(Path(path), text.encode())
    print(f"wrote {path}", file=sys.stderr)


def duplicates(args):
    """Prints and writes the groups of near-duplicates."""
    from rrt.photo_index.duplicates import find_groups
    from rrt.photo_index.duplicates_report import as_html, as_json, as_text
    from rrt.photo_index.query import PhotoIndex

    index = PhotoIndex(args.index)
    groups = find_groups(index)
    found = json.dumps(as_json(index, groups), indent=1, ensure_ascii=False)
    print(found if args.json == "-" else as_text(groups))
    if args.html:
        _write(args.html, as_html(index, groups))
    if args.json and args.json != "-":
        _write(args.json, found + "\n")


def serve(args):
    """Serves the web page until it is interrupted."""
    from rrt.photo_index.server import serve_index

    serve_index(args)


def run_measure(args):
    """Prints how often the first result is right."""
    from rrt.photo_index import measure

    measure.measure(args)


def info(args):
    """Prints what an index holds."""
    from rrt.photo_index.segments import describe

    facts = describe(args.index)
    print(json.dumps(facts, indent=1) if args.json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


def main():
    """Runs the sub-command that the command line names."""
    parser = CommandParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_build, add_query, add_serve, add_duplicates, add_measure, add_info):
        add(commands)
    args = parser.parse_args()
    return args.run(args)
