"""Reranking methods compared on one test set in one run: accuracy, time and memory, as tables and images.

    python tools/compare.py with temp_dir=logs/compare dataset.landmarks model.RRT resume=logs/rrt_landmarks/best.pt
        fusion=logs/rrt_landmarks/fusion.json whitening=data/landmarks_train/whitening_r50.npz

Needs what evaluate_revisited.py needs, and takes its settings and those of the methods (geometric.threshold=20). The
ranking before reranking is that of the neighbours file. Without methods= all are compared that have what they need:
rrt with resume=, asmk with asmk.codebook=. Writes comparison.md, .csv, .tex and .json, accuracy_time.png,
accuracy_memory.png and rankings.npz (for tools/report.py) into temp_dir.
"""

import csv
import io
from pathlib import Path

import numpy as np
from scipy.stats import permutation_test

from rrt.command_line.sacred import add_settings, make_experiment, plain_config
from rrt.configs import dataset_ingredient, model_ingredient
from rrt.datasets.configured import open_test
from rrt.errors import InputError
from rrt.evaluation.methods import measure_method
from rrt.evaluation.rankings import RankedMethod, save_rankings
from rrt.evaluation.reranking import evaluate_global, summary
from rrt.evaluation.run import (
    EVALUATION_SETTINGS,
    method_details,
    open_reranker,
    protocol_of_reranking,
    protocol_of_search,
    write_json,
)
from rrt.files.atomic import atomic_path
from rrt.progress import bar
from rrt.rerankers.base import SearchSpace
from rrt.rerankers.build import METHODS, all_default_settings, configure
from rrt.rerankers.fusion import read_fusion
from rrt.rerankers.transformer import Transformer
from rrt.search.whitening import load_whitening
from rrt.viz.style import MARKERS, save_figure

SETTINGS = {
    "temp_dir": ("logs/compare", "folder for the tables and images and the record of the run"),
    "methods": (
        None,
        "list of methods and chains, as ['diffusion','superglobal+rrt']; None: all that have what they need",
    ),
}
_SHARED = (
    "resume",
    "scale_binning",
    "lambda",
    "temperature",
    "fusion",
    "whitening",
    "precision",
    "compile",
    "memory_mb",
    "seed",
    "cpu",
)
SETTINGS |= {name: EVALUATION_SETTINGS[name] for name in _SHARED}

dataset = dataset_ingredient()
model = model_ingredient()
ex = make_experiment("compare", ingredients=[dataset, model])
add_settings(ex, *({name: entry[part] for name, entry in SETTINGS.items()} for part in (0, 1)))
ex.add_config(all_default_settings())


def compare(data: dict, network: dict, settings: dict) -> list[dict]:
    """A row for global search and each method: method, candidates (None = all), map {protocol: %}, interval {protocol:
    [low, high]}, p (against global search; of Medium where there is one), ms_per_query, prepare_seconds,
    bytes_per_image.

    Intervals are of a bootstrap over the queries; p is that of a paired randomisation test (the signs of the queries'
    differences drawn at random, two-sided). Writes rankings.npz into temp_dir. Raises InputError before the long work.
    """
    whitening = load_whitening(settings["whitening"]) if settings["whitening"] else None
    fusion = read_fusion(settings["fusion"], settings["lambda"], settings["temperature"])
    configured = [configure(name, settings, settings["resume"], cpu=settings["cpu"]) for name in _names(settings)]
    test = open_test(data, "test", data["max_sequence_len"])
    transformer, of_rrt = None, {}
    if any("rrt" in each.names for each in configured):
        transformer = Transformer(open_reranker(data, network, settings), fusion)
        of_rrt = protocol_of_reranking(transformer.reranker, test.store, fusion)
    space = SearchSpace(test.store, test.query_index, test.gallery_index, whitening)
    before = evaluate_global(test)
    search = {"ms_per_query": 0.0, "prepare_seconds": 0.0, "bytes_per_image": 4.0 * space.gallery.shape[1]}
    rows = [_row("global", 0, before, before) | search]
    ranked = [RankedMethod("global", before, dict.fromkeys(before, test.ranks))]
    for each in bar(configured, "compare", "method"):
        method = each.method(transformer)
        measured = measure_method(test, method, whitening)
        cost = {
            "ms_per_query": round(1000 * measured.seconds / len(test.query_index), 2),
            "prepare_seconds": round(measured.prepare_seconds, 2),
            "bytes_per_image": round(method.bytes_per_image(space)),
        }
        rows.append(_row(each.label, measured.num_rerank, measured.results, before) | cost)
        details = method_details(each, measured, len(test.query_index)) | (of_rrt if "rrt" in each.names else {})
        ranked.append(RankedMethod(each.label, measured.results, measured.rankings, details))
    save_rankings(settings["temp_dir"], test, ranked, protocol_of_search(test, data, settings))
    return rows


def _names(settings):
    """The methods asked for, or all that have what they need."""
    names = settings["methods"]
    if names is None:
        lacking = {"rrt": not settings["resume"], "asmk": not settings["asmk"]["codebook"]}
        names = [name for name in METHODS if not lacking.get(name)]
        names += ["database_augmentation+diffusion", "geometric+diffusion+database_augmentation"]
        names += ["superglobal+k_reciprocal", "database_augmentation+k_reciprocal"]
        if settings["resume"]:
            names += [
                "superglobal+rrt",
                "aqe+rrt",
                "diffusion+rrt",
                "k_reciprocal+rrt",
                "rrt+diffusion+database_augmentation",
            ]
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"setting methods={names!r}: expected a list of names, as ['diffusion','superglobal+rrt']")
    return names


def _row(label, candidates, results, before):
    numbers = summary(results)
    row = {"method": label, "candidates": candidates, "map": {}, "interval": {}}
    for protocol, result in results.items():
        row["map"][protocol] = numbers[f"{protocol[0].upper()}_map"]
        row["interval"][protocol] = numbers[f"{protocol[0].upper()}_map_95"]
    gains = {protocol: result.aps - before[protocol].aps for protocol, result in results.items()}
    gain = gains.get("medium", next(iter(gains.values())))
    row["p"] = randomisation_p(gain)
    return row


def randomisation_p(differences: np.ndarray) -> float | None:
    """Two-sided p of paired differences [Q] (NaN left out) under random signs; None where all are zero."""
    differences = differences[np.isfinite(differences)]
    if not differences.any():
        return None
    found = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def header(rows: list[dict]) -> list[str]:
    """Titles of the columns; protocols are those of the ground truth."""
    protocols = [name.capitalize() for name in rows[0]["map"]]
    return ["method", "candidates", *protocols, "p", "ms a query", "prepare s", "bytes an image"]


def cells(row: dict) -> list[str]:
    """The texts of a row under header()."""
    maps = []
    for protocol, value in row["map"].items():
        interval = row["interval"][protocol]
        maps.append("" if value is None else f"{value:.2f} ({interval[0]:.1f}–{interval[1]:.1f})")
    p = "" if row["p"] is None else "<0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    candidates = "all" if row["candidates"] is None else str(row["candidates"])
    return [
        row["method"],
        candidates,
        *maps,
        p,
        f"{row['ms_per_query']:.1f}",
        f"{row['prepare_seconds']:.1f}",
        f"{row['bytes_per_image']:.0f}",
    ]


def as_markdown(rows: list[dict]) -> str:
    titles = header(rows)
    lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *map(cells, rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def as_csv(rows: list[dict]) -> str:
    """Plain numbers, a column for each end of an interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    maps = [f"{name}_{what}" for name in rows[0]["map"] for what in ("map", "low", "high")]
    writer.writerow(["method", "candidates", *maps, "p", "ms_per_query", "prepare_seconds", "bytes_per_image"])
    for row in rows:
        numbers = []
        for name, value in row["map"].items():
            numbers += [value, *row["interval"][name]]
        writer.writerow(
            [
                row["method"],
                row["candidates"],
                *numbers,
                row["p"],
                row["ms_per_query"],
                row["prepare_seconds"],
                row["bytes_per_image"],
            ]
        )
    return file.getvalue()


def as_latex(rows: list[dict]) -> str:
    """A booktabs table."""
    escape = str.maketrans({"_": r"\_", "%": r"\%", "–": "--", "<": r"$<$"})
    lines = [" & ".join(line).translate(escape) + r" \\" for line in [header(rows), *map(cells, rows)]]
    body = [lines[0], r"\midrule", *lines[1:]]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(header(rows)) - 1)}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def draw(rows: list[dict], path: Path, key: str, label: str) -> None:
    """Medium mAP with its interval against the cost ``key`` of each method on a logarithmic axis; global search is the
    dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    protocol = "medium" if "medium" in rows[0]["map"] else next(iter(rows[0]["map"]))
    shown = [row for row in rows if row["map"].get(protocol) is not None and row[key] > 0]
    for number, row in enumerate(shown):
        value, (low, high) = row["map"][protocol], row["interval"][protocol]
        axis.errorbar(
            row[key],
            value,
            [[value - low], [high - value]],
            fmt=MARKERS[number % len(MARKERS)],
            capsize=3,
            color=f"C{number % 10}",
            label=row["method"],
        )
    axis.axhline(rows[0]["map"][protocol], color="grey", linestyle="--", linewidth=0.9, label="global search")
    axis.set(xscale="log", xlabel=label, ylabel=f"{protocol.capitalize()} mAP, % (95 % interval over queries)")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)


@ex.main
def main(_config):
    """Print the table and write it as Markdown, CSV, LaTeX and images."""
    settings = plain_config(_config)
    data, network = settings.pop("dataset"), settings.pop("model")
    folder = Path(settings["temp_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    rows = compare(data, network, settings)
    for name, text in (("md", as_markdown(rows)), ("csv", as_csv(rows)), ("tex", as_latex(rows))):
        with atomic_path(folder / f"comparison.{name}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(
        folder, "comparison.json", {"rows": rows, "whitening": settings["whitening"], "resume": settings["resume"]}
    )
    draw(rows, folder / "accuracy_time.png", "ms_per_query", "milliseconds a query, search not counted")
    draw(rows, folder / "accuracy_memory.png", "bytes_per_image", "bytes held of a gallery image")
    print(as_markdown(rows), end="")
    print(
        f"wrote comparison.md, .csv, .tex, .json, accuracy_time.png, accuracy_memory.png and rankings.npz in {folder}"
    )
    return {row["method"]: row["map"] for row in rows}
