"""Average precision of every query of the classic Oxford5k or Paris6k, as a table with a row a landmark."""

from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import evaluate, percent
from rrt.evaluation.tables import csv_text, padded
from rrt.evaluation.trec import read_run, run_positions
from rrt.files.names import ImageNames
from rrt.formats.ground_truth_classic import read_classic
from rrt.search.table import load_neighbors

FORMATS = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def classic_precisions(texts, ranking, query, gallery, allow_missing=False):
    """({query as the files name it: average precision 0..1, NaN without right images}, mean) of one ranking.

    texts: folder of the original files. query, gallery: ImageLists; those of the neighbour table where the ranking is
    one. allow_missing: leave out images that the files name and the gallery lacks. Raises InputError.
    """
    truth = read_classic(texts, gallery.names)
    truth.refuse_missing(gallery.path, allow_missing)
    if Path(ranking).suffix == ".pkl":
        images = ImageNames(query.names)
        rows = {name: _found(images, name, query.path) for name in truth.qimlist}
        absent = [name for name, row in rows.items() if row is None]
        if absent:
            raise InputError(f"{query.path}: lacks the query '{absent[0]}' of {texts}; give the lists of this data set")
        table = load_neighbors(ranking, rows=len(query), columns_below=len(gallery))
        ranks = table[np.array([rows[name] for name in truth.qimlist], np.int64)]
    else:
        ranks = _run_ranks(ranking, truth, gallery.names)
    # Images outside of the gallery were refused or left out; what is found counts by itself.
    result = evaluate(ranks, truth.gnd, ks=(1,), num_gallery=len(gallery))["classic"]
    return dict(zip(truth.names, result.aps.tolist())), result.map


def _run_ranks(path, truth, gallery):
    run, _ = read_run(path)
    known, images = ImageNames(truth.qimlist), ImageNames(gallery)
    named = {}
    for query, documents in run.items():
        # A query by its image becomes one by its name in the files.
        row = None if query in truth.names else _found(known, query, path)
        name = query if row is None else truth.names[row]
        if name in named:
            raise InputError(f"{path}: a query is there under two names; keep one of them")
        rows = [(_found(images, document, path), document) for document in documents]
        named[name] = [document if row is None else gallery[row] for row, document in rows]
        if len(set(named[name])) < len(rows):
            raise InputError(f"{path}: query '{name}' lists one image under two names; keep one of them")
    return run_positions(path, named, truth.names, gallery)[0]


def _found(images, name, path):
    try:
        return images.find(name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


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
        header = ["method", *next(iter(tables.values()))[0]]
        return csv_text([header, *([method, *row] for method, rows in tables.items() for row in rows[1:])])
    if form == "latex":
        return "\n".join(_latex(method, rows) for method, rows in tables.items())
    return "\n".join(f"{method}\n\n{padded(rows)}\n" for method, rows in tables.items())


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
