"""Rankings and ground truth as text files of TREC: runs (``query Q0 document rank score tag``) and qrels.

A run's score is the number of documents from its line to the end of the list: it falls strictly with the rank, is exact
in the 32-bit floats of trec_eval up to 16 million, and holds for what was reranked and for the rest alike, whose own
scores (logits, similarities) cannot be compared. White space and ``%`` in names are percent-encoded and read back.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from rrt.errors import InputError
from rrt.evaluation.metrics import evaluate
from rrt.files.atomic import atomic_path
from rrt.formats.ground_truth import POSITIVE_GRADES

_ENCODED = re.compile(r"[\s%]")


def write_run(path, queries: Sequence[str], rankings: Iterable[Sequence[str]], tag: str) -> Path:
    """Write the documents of each query, best first, as a TREC run; the file appears whole or not at all."""
    tag = _word(tag)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for query, documents in zip(queries, rankings, strict=True):
            query, count = _word(query), len(documents)
            file.writelines(f"{query} Q0 {_word(name)} {i + 1} {count - i} {tag}\n" for i, name in enumerate(documents))
    return Path(path)


def read_run(path) -> tuple[dict[str, list[str]], str]:
    """({query: documents, best first}, tag) of a TREC run of any program.

    As for TREC's own tools, falling scores are the order; of equal ones the rank column, then the file.
    Raises InputError naming file and line.
    """
    path = Path(path)
    found: dict[str, dict[str, tuple]] = {}
    tag = ""
    for where, (query, _, name, rank, score, last) in _lines(path, 6, "query Q0 document rank score tag"):
        tag = last
        query, name = unquote(query), unquote(name)
        try:
            key = (-float(score), int(rank))
        except ValueError:
            raise InputError(f"{where}: rank {rank!r} and score {score!r} are not an integer and a number") from None
        if math.isnan(key[0]):
            raise InputError(f"{where}: the score is not a number; write the run again")
        documents = found.setdefault(query, {})
        if name in documents:
            raise InputError(f"{where}: '{name}' is listed twice for query '{query}'; keep one line")
        documents[name] = key
    if not found:
        raise InputError(f"{path}: the run is empty; expected lines 'query Q0 document rank score tag'")
    return {query: sorted(documents, key=documents.__getitem__) for query, documents in found.items()}, unquote(tag)


def write_qrels(path, queries: Sequence[str], gallery: Sequence[str], gnd: list[dict], protocol: str) -> Path:
    """Write what a protocol counts as right (relevance 1; what it ignores is in no run and needs no line)."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for query, entry in zip(queries, gnd, strict=True):
            for position in np.sort(np.concatenate([entry[grade] for grade in POSITIVE_GRADES[protocol]])):
                file.write(f"{_word(query)} 0 {_word(gallery[position])} 1\n")
    return Path(path)


def run_positions(
    path, run: dict[str, list[str]], queries: Sequence[str], gallery: Sequence[str], others: bool = False
) -> tuple[np.ndarray, int]:
    """(ranks int64 [Q, R] filled up with -1, number of positions): a run's rankings as gallery positions.

    A query that the run does not name has found nothing. others: documents that are not in the gallery (distractors)
    are wrong ones and take positions behind it; otherwise they are an InputError, as is a query that is none.
    """
    unknown = run.keys() - set(queries)
    if unknown:
        raise InputError(f"{path}: '{min(unknown)}' is no query of the test set; give the lists the run was made for")
    positions = {name: position for position, name in enumerate(gallery)}
    ranks = np.full((len(queries), max(map(len, run.values()))), -1, np.int64)
    for row, query in enumerate(queries):
        for column, name in enumerate(run.get(query, ())):
            if name not in positions:
                if not others:
                    raise InputError(
                        f"{path}: '{name}' (query '{query}') is not in the gallery; give the lists the run was made"
                        " for, or say that there are distractors"
                    )
                positions[name] = len(positions)
            ranks[row, column] = positions[name]
    return ranks, len(positions)


def _lines(path, count, form):
    """(where, fields) of every line that is not blank."""
    try:
        # Only \n ends a line: splitlines() would end one at characters that names may hold.
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected lines '{form}'") from None
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if fields:
            if len(fields) != count:
                raise InputError(f"{path}:{number}: {len(fields)} fields; expected '{form}'")
            yield f"{path}:{number}", fields


def _word(text):
    """A name as one field of a line."""
    return _ENCODED.sub(lambda match: quote(match[0], safe=""), text)


def measure_run(path, images, distractors=False):
    """(tag, {protocol: ProtocolResult}, queries the run does not name) of one run. images: RevisitedSet; distractors:
    documents that are not in the gallery are wrong ones rather than an error. Raises InputError."""
    run, tag = read_run(path)
    queries = images.query.names
    ranks, num_gallery = run_positions(path, run, queries, images.gallery.names, distractors)
    results = evaluate(ranks, images.truth.gnd, num_gallery=num_gallery)
    protocol = tag.rpartition("_")[2]
    return tag, {protocol: results[protocol]} if protocol in results else results, len(set(queries) - run.keys())
