"""Average precision of every query of the classic Oxford5k or Paris6k, as a table with a row a landmark."""

import csv
import io
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import evaluate, percent
from rrt.evaluation.trec import read_run, run_positions
from rrt.formats.ground_truth_classic import read_classic
from rrt.search.table import load_neighbors

FORMATS = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def classic_precisions(texts, ranking, query, gallery, allow_missing=False):
    """({query as the files name it: average precision 0..1, NaN without right images}, mean) of one ranking.

    texts: folder of the original files. query, gallery: ImageLists; those of the neighbour table where the ranking is
    one. allow_missing: leave out images that the files name and the gallery lacks. Raises InputError.
    """
    stems = _unique_stems(gallery)
    truth = read_classic(texts, stems)
    truth.refuse_missing(gallery.path, allow_missing)
    if Path(ranking).suffix == ".pkl":
        rows = {stem: row for row, stem in enumerate(_unique_stems(query))}
        absent = [name for name in truth.qimlist if name not in rows]
        if absent:
            raise InputError(f"{query.path}: lacks the query '{absent[0]}' of {texts}; give the lists of this data set")
        table = load_neighbors(ranking, rows=len(query), columns_below=len(gallery))
        ranks = table[[rows[name] for name in truth.qimlist]]
    else:
        ranks = _run_ranks(ranking, truth, stems)
    # Images outside of the gallery were refused or left out; what is found counts by itself.
    result = evaluate(ranks, truth.gnd, ks=(1,), num_gallery=len(stems))["classic"]
    return dict(zip(truth.names, result.aps.tolist())), result.map


def _run_ranks(path, truth, stems):
    run, _ = read_run(path)
    known = set(truth.names)
    queries = {name if name in known else Path(name).stem: documents for name, documents in run.items()}
    documents = {query: [Path(name).stem for name in names] for query, names in queries.items()}
    for query, names in documents.items():
        if len(set(names)) < len(names):
            raise InputError(f"{path}: query '{query}' lists one image under two names; keep one of them")
    # A query by its image becomes one by its name in the files.
    of_image = dict(zip(truth.qimlist, truth.names))
    named = {of_image.get(query, query): names for query, names in documents.items()}
    if len(named) < len(run):
        raise InputError(f"{path}: a query stands there under two names; keep one of them")
    return run_positions(path, named, truth.names, stems)[0]


def _unique_stems(images):
    stems = [Path(name).stem for name in images.names]
    if len(set(stems)) < len(stems):
        twice = next(stem for row, stem in enumerate(stems) if stem in stems[:row])
        raise InputError(f"{images.path}: two images are called '{twice}'; the ground truth cannot tell them apart")
    return stems


def landmark_table(precisions):
    """Rows of text: header, a row a landmark (precision of its queries 1, 2, ... and their mean, in percent), and the
    last one with the mean of all queries. precisions: {`all_souls_1`: 0..1, NaN = no right image}."""
    landmarks = {}
    for name, value in precisions.items():
        landmark, _, number = name.rpartition("_")
        landmarks.setdefault(landmark or name, []).append((int(number) if number.isdecimal() else 0, value))
    width = max(map(len, landmarks.values()))
    rows = [["landmark", *map(str, range(1, width + 1)), "mean"]]
    for landmark, queries in landmarks.items():
        values = [value for _, value in sorted(queries, key=lambda query: query[0])]
        rows.append([landmark, *map(percent, values), *[""] * (width - len(values)), percent(_mean(values))])
    return [*rows, [f"mean of {len(precisions)} queries", *[""] * width, percent(_mean(list(precisions.values())))]]


def _mean(values):
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def format_landmarks(tables, form):
    """{method: rows of landmark_table} as text in one of the FORMATS."""
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for number, (method, rows) in enumerate(tables.items()):
            writer.writerows([["method", *rows[0]]] * (number == 0) + [[method, *row] for row in rows[1:]])
        return text.getvalue()
    return "\n".join((_latex if form == "latex" else _markdown)(method, rows) for method, rows in tables.items())


def _markdown(method, rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = (
        " | ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )
    return f"{method}\n\n" + "".join(f"| {line} |\n" for line in lines)


def _latex(method, rows):
    lines = [" & ".join(cell.replace("_", r"\_") for cell in row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join(
        [
            f"% {method}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:-1],
            r"\hline",
            lines[-1],
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )
