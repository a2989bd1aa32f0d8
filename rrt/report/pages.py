"""Evaluations as a folder of web pages that opens from disk, without a server or a network.

    index.html, *.css, *.js    the page (rrt/report/page)
    data-<digest>/meta.js      names, average precisions, figures, settings; all that the first page shows
    data-<digest>/q<row>.js    the results of one query, loaded when it is opened
    thumbs/, pairs/            images

The data are scripts because a page from disk may load scripts but not files. Everything is written under new names
before index.html, which alone says which data belong to it, so that a kill leaves the old report whole.
"""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from rrt.errors import InputError
from rrt.evaluation.rankings import command_line, load_rankings, software
from rrt.files.atomic import remove_leftovers, write_bytes
from rrt.formats.ground_truth import IGNORED_GRADES, POSITIVE_GRADES, grades_of, pixel_box
from rrt.report.data import SHOWN, Comparison, aps_data, combine, image_folder, query_data, summary_data
from rrt.report.pairs import draw_pairs, folder_of, parse_pairs
from rrt.report.thumbnails import Job, make_thumbnails, remove_others

MARK = "rrt-report.json"
_PAGE = (
    "report.css",
    "base.js",
    "tables.js",
    "summary.js",
    "compare.js",
    "settings.js",
    "queries.js",
    "query.js",
    "results.js",
    "result.js",
    "main.js",
)


def make_report(
    evaluations, out, image_dir=None, pairs=(), resume=None, num_workers: int = 1
) -> tuple[Comparison, dict, int]:
    """Write the report of evaluation folders to the folder ``out`` -> (what is compared, rrt.report.data.summary_data
    of it, images that are missing).

    pairs: texts QUERY:CANDIDATE whose matches are drawn, too, with the checkpoint ``resume`` or the one that an
    evaluation used. num_workers: processes for the thumbnails. Raises InputError before the thumbnails are made.
    """
    comparison = combine([load_rankings(folder) for folder in evaluations])
    wanted = parse_pairs(pairs, comparison)
    folder = image_folder(comparison.evaluations[0], image_dir)
    out = _own_folder(out)
    drawn = draw_pairs(out / "pairs", wanted, comparison, folder, resume)
    pages = [query_data(comparison, row) for row in range(len(comparison.queries))]
    shown = sorted(set().union(*(page["names"] for page in pages)))
    jobs = {image: Job(folder / comparison.names[image]) for image in shown}
    whole = [Job(folder / name) for name in comparison.queries]
    crops = [Job(folder / name, pixel_box(entry)) for name, entry in zip(comparison.queries, comparison.gnd)]
    made = make_thumbnails(out / "thumbs", [*whole, *crops, *jobs.values()], num_workers)
    for page in pages:
        page["thumbs"] = {image: _shown(made.get(jobs[image])) for image in page["names"]}
    summary = summary_data(comparison)
    queries = [
        {
            "name": name,
            "box": list(pixel_box(entry)),
            "whole": _shown(made.get(a)),
            "crop": _shown(made.get(b)),
            "counts": {grade: len(entry[grade]) for grade in grades_of(entry)},
        }
        for name, entry, a, b in zip(comparison.queries, comparison.gnd, whole, crops)
    ]
    meta = {
        "title": Path(comparison.evaluations[0].about["data_dir"]).name,
        "gallery": len(comparison.evaluations[0].gallery),
        "protocols": {p: {"positive": POSITIVE_GRADES[p], "ignored": IGNORED_GRADES[p]} for p in comparison.protocols},
        "ks": comparison.evaluations[0].ks,
        "shown": SHOWN,
        "queries": queries,
        "methods": [
            {"label": m.label, "before": m.before, "evaluation": m.evaluation, "aps": aps_data(m), "details": m.details}
            for m in comparison.methods
        ],
        "summary": summary,
        "pairs": drawn,
        "evaluations": [{"folder": str(e.path.parent)} | e.about for e in comparison.evaluations],
        "report": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command_line(),
            "software": software(),
            "images": str(folder),
        },
    }
    texts = {f"q{row:05d}.js": _script("query", page, row) for row, page in enumerate(pages)}
    _write(out, meta, texts)
    for old in (out / "pairs").glob("*"):
        if old.name not in {folder_of(*pair, comparison) for pair in wanted}:
            shutil.rmtree(old, ignore_errors=True)
    remove_others(out / "thumbs", {thumbnail.file for thumbnail in made.values()})
    return comparison, summary, len({*whole, *jobs.values()} - made.keys())


def _own_folder(out):
    """The report's folder; InputError for one that holds other things, which a report would mix with."""
    out = Path(out)
    if out.is_dir():
        remove_leftovers(out)
    # .lock is that of this run (rrt.files.locks.owned).
    if out.is_dir() and {path.name for path in out.iterdir()} - {".lock"} and not (out / MARK).exists():
        raise InputError(f"{out}: holds files that are no report's; give --out an empty or a new folder")
    write_bytes(out / MARK, (json.dumps({"schema": "rrt-report", "version": 1}) + "\n").encode())
    return out


def _shown(thumbnail):
    return [thumbnail.file, *thumbnail.size] if thumbnail else None


def _script(name, value, *row):
    """A call that hands the page a value. JSON in ASCII; < is escaped, so that no text can end a script."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"RRT.receive({json.dumps(name)},{text}{''.join(f',{number}' for number in row)});\n"


def _write(out, meta, texts):
    """The data, the page, and last index.html, which makes them the report; then what older reports left is removed."""
    texts["meta.js"] = _script("meta", meta)
    digest = hashlib.sha256("".join(f"{name}\0{text}" for name, text in sorted(texts.items())).encode()).hexdigest()[
        :12
    ]
    data = out / f"data-{digest}"
    for name, text in texts.items():
        write_bytes(data / name, text.encode("ascii"))
    page = files("rrt.report") / "page"
    for name in _PAGE:
        write_bytes(data / name, (page / name).read_bytes())
    template = Environment(autoescape=True).from_string((page / "index.html").read_text(encoding="utf-8"))
    write_bytes(out / "index.html", template.render(title=meta["title"], data=data.name).encode())
    for old in out.glob("data-*"):
        if old != data:
            shutil.rmtree(old, ignore_errors=True)
