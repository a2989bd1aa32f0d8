"""The mean of several comparisons of methods (rrt.evaluation.comparison), so that no single draw of queries decides."""

from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import parse_json


def read_comparison(path) -> dict[str, float]:
    """{method: Medium mAP in percent} of a comparison.json. InputError when the file is none."""
    try:
        rows = parse_json(Path(path).read_bytes())["rows"]
        return {row["method"]: float(row["map"]["medium"]) for row in rows}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it with tools/compare.py") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no Medium mAP of methods in it ({error}); make it again with tools/compare.py"
        ) from None


def ranked(comparisons: dict) -> dict[str, np.ndarray]:
    """{method: its Medium mAP in each comparison}, the best mean first. comparisons {path: {method: %}}; InputError
    when they are not of the same methods."""
    (first, methods), *others = comparisons.items()
    for path, other in others:
        if different := sorted(set(methods) ^ set(other)):
            raise InputError(f"{path}: other methods than {first}: {', '.join(different)}; compare the same in both")
    values = {name: np.array([found[name] for found in comparisons.values()]) for name in methods}
    return dict(sorted(values.items(), key=lambda entry: -entry[1].mean()))


def table(values: dict[str, np.ndarray]) -> str:
    """Markdown by falling mean; values: as ``ranked`` gives them."""
    count = len(next(iter(values.values())))
    lines = [f"| method | Medium, mean of {count} | lowest to highest |\n| --- | ---: | ---: |\n"]
    return "".join(
        lines
        + [f"| {name} | {each.mean():.2f} | {each.min():.2f}–{each.max():.2f} |\n" for name, each in values.items()]
    )


def table_of_files(paths) -> str:
    """The table of several comparison.json. InputError for files that are none or not of the same methods."""
    return table(ranked({path: read_comparison(path) for path in paths}))
