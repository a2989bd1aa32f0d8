"""What the literature reports for DELG descriptors and the reranking transformer, and the published checkpoints.

Tan, Yuan and Ordonez, ICCV 2021, table of ROxford and RParis; the figures of global search are DELG's (ECCV 2020).
"""

from pathlib import Path

from rrt.errors import InputError, check_choice
from rrt.files.atomic import read_json, write_bytes
from rrt.files.downloads import download
from rrt.files.mirrors import file_address
from rrt.network.checkpoint import load_checkpoint

# The authors' public repository. It states its licence itself; nothing of it is part of this one.
REPOSITORY = "https://github.com/uvavision/RerankingTransformer"
BASE_URL = "https://raw.githubusercontent.com/uvavision/RerankingTransformer/main/RRT_GLD/rrt_gld_ckpts"
# {descriptors: {test set: (Medium and Hard mAP of global search, of 100 reranked), percent}}
EXPECTED: dict[str, dict[str, tuple[tuple[float, float], tuple[float, float]]]] = {
    "r50_gldv1": {"roxf": ((69.7, 45.1), (75.5, 56.4)), "rpar": ((81.6, 63.4), (82.7, 68.6))},
    "r50_gldv2": {"roxf": ((73.6, 51.0), (78.1, 60.2)), "rpar": ((85.7, 71.5), (86.7, 75.1))},
    "r101_gldv1": {"roxf": ((73.2, 51.2), (78.8, 62.5)), "rpar": ((82.4, 64.7), (83.2, 68.4))},
    "r101_gldv2": {"roxf": ((76.3, 55.6), (79.9, 64.1)), "rpar": ((86.6, 72.4), (87.6, 76.1))},
}


def fetch_checkpoint(descriptors: str, path: str | Path, base_url: str = BASE_URL, sha256: str | None = None) -> Path:
    """Fetch a published checkpoint, 9 MB; one that is there is left alone. Raises InputError, also for an answer that
    is no checkpoint, which is not kept."""
    check_choice("descriptors", descriptors, EXPECTED)
    path = Path(path)
    if not path.exists():
        download(file_address(base_url, f"{descriptors}.pt"), path, sha256=sha256)
        try:
            load_checkpoint(path)
        except InputError as error:
            path.unlink()
            raise InputError(f"{error}; name a mirror with --base_url") from None
    return path


_REMEDY = "give results.json of evaluate_revisited.py"


def results_table(files: list[str], output: str | Path | None = None) -> str:
    """Medium and Hard mAP with intervals of each results.json in a table of Markdown, written to a file, too. Raises
    InputError."""
    lines = ["| results | method | Medium | Hard | ms a query | MB |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for file in map(Path, files):
        numbers = read_json(file, _REMEDY)
        if not isinstance(numbers, dict) or not isinstance(numbers.get("protocol"), dict):
            raise InputError(f"{file}: no results of evaluate_revisited.py; measure it first")
        gallery = numbers["protocol"].get("distractors") or "no distractors"
        lines += [
            f"| {file.parent.name}, {gallery} | {method} | {_cell(found, 'M')} | {_cell(found, 'H')} |"
            f" {'' if number == 0 else numbers.get('ms_per_query', '')} | {numbers.get('peak_memory_mb', '')} |"
            for number, (method, found) in enumerate(
                (method, found) for method, found in numbers.items() if isinstance(found, dict) and "M_map" in found
            )
        ]
    text = "\n".join(lines) + "\n"
    if output:
        write_bytes(Path(output), text.encode())
    return text


def _cell(found, key):
    low, high = found[f"{key}_map_95"]
    return f"{found[f'{key}_map']} ({low}, {high})"


def comparison(descriptors: str, test_set: str, results: str | Path) -> str:
    """A table of the literature's figures beside those of an evaluation. results: its results.json, which has global
    search and RRT. Raises InputError."""
    check_choice("descriptors", descriptors, EXPECTED)
    check_choice("test set", test_set, EXPECTED[descriptors])
    numbers = read_json(Path(results), _REMEDY)
    lines = [f"{'':<20}{'Medium':>20}{'Hard':>20}", f"{'':<20}{'expected  measured':>20}{'expected  measured':>20}"]
    for label, method, expected in zip(("global", "reranked"), ("global", "RRT"), EXPECTED[descriptors][test_set]):
        try:
            measured = [float(numbers[method][name]) for name in ("M_map", "H_map")]  # pyright: ignore[reportOptionalSubscript]
        except (TypeError, KeyError, ValueError):
            raise InputError(
                f"{results}: no Medium and Hard mAP of {method}; write it with evaluate_revisited.py and resume="
            ) from None
        cells = "".join(f"{wanted:>10.1f}{found:>10.2f}" for wanted, found in zip(expected, measured))
        lines.append(f"{label:<20}{cells}")
    return "\n".join(lines)
