"""Reranking methods compared on one test set: figures, costs, tables and charts."""

from pathlib import Path
from typing import Any

from rrt.command_line.settings import FilePath, setting, settings
from rrt.datasets.configured import open_test
from rrt.errors import InputError
from rrt.evaluation.methods import measure_method
from rrt.evaluation.rankings import RankedMethod, save_rankings
from rrt.evaluation.reranking import evaluate_global, summary
from rrt.evaluation.run import method_details, protocol_of_reranking, protocol_of_search
from rrt.evaluation.settings import FusedSettings
from rrt.evaluation.significance import baselines, gain_text, p_text, paired_gains
from rrt.evaluation.tables import as_lines, csv_text
from rrt.files.atomic import write_bytes, write_json
from rrt.formats.ground_truth import chosen_protocol
from rrt.progress import bar
from rrt.rerankers.base import SearchSpace
from rrt.rerankers.build import METHODS, ConfiguredMethod, configure, method_class
from rrt.rerankers.late import Late
from rrt.rerankers.transformer import Transformer
from rrt.viz.style import MARKERS, save_figure

# Chains compared beside the single methods, and those of the transformer.
_CHAINS = ("database_augmentation+diffusion", "geometric+diffusion+database_augmentation")
_CHAINS += ("superglobal+k_reciprocal", "database_augmentation+k_reciprocal")
_RRT_CHAINS = ("superglobal+rrt", "aqe+rrt", "diffusion+rrt", "k_reciprocal+rrt", "rrt+diffusion+database_augmentation")
_TITLES = ("ms a query", "prepare s", "bytes an image")


@settings()
class CompareSettings(FusedSettings):
    """Of tools/compare.py."""

    temp_dir: FilePath = setting("folder for the tables and images and the record of the run", default="logs/compare")
    methods: Any = setting(
        "list of methods and chains, as ['diffusion','superglobal+rrt']; baselines: plain matching, geometry and the"
        " transformer with as many local descriptors, alone and blended; None: all that have what they need",
        default=None,
    )
    against: str = setting("method that gains and p are over: global, or one of methods, as maxsim", default="global")

    def configured(self, names: list[str]) -> list[ConfiguredMethod]:
        """These methods and chains with their settings. Raises InputError."""
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"setting methods={names!r}: expected a list of names, as ['diffusion','superglobal+rrt']")
        found = [configure(name, self.rerankers or {}, self.resume, cpu=self.cpu) for name in names]
        if self.against != "global" and self.against not in names:
            raise InputError(
                f"setting against={self.against}: not among methods; choose one of {', '.join(['global', *names])}"
            )
        return [each for each in found if each]

    def open_transformer(self, configured: list[ConfiguredMethod]) -> Transformer | None:
        """The transformer with its fusion, where one of these methods needs it. Raises InputError."""
        fusion = self.open_fusion()
        if not any("rrt" in each.names for each in configured):
            return None
        return Transformer(self.open_reranker(), fusion)


def compare(settings: CompareSettings) -> list[dict[str, Any]]:
    """A row for global search and each method: method, candidates (None = all), map {protocol: %}, interval {protocol:
    [low, high]}, gain and gain_interval over the method ``against`` and p of it (of Medium where there is one), p_holm,
    ms_per_query, prepare_seconds, bytes_per_image.

    Intervals are of a bootstrap over the queries; p is that of a paired randomisation test (the signs of the queries'
    differences drawn at random, two-sided), p_holm the same for as many tests as there are. Writes rankings.npz into
    temp_dir. Raises InputError before the long work.
    """
    whitening = settings.open_whitening()
    test = open_test(settings.dataset)
    wanted = names_compared(settings, test.store)
    configured = settings.configured(wanted)
    transformer = settings.open_transformer(configured)
    of_rrt = protocol_of_reranking(transformer, test.store) if transformer else {}
    space = SearchSpace(test.store, test.query_index, test.gallery_index, whitening)
    before = evaluate_global(test)
    search = {"ms_per_query": 0.0, "prepare_seconds": 0.0, "bytes_per_image": 4.0 * space.gallery.shape[1]}
    rows = [_row(test.search_label, 0, before) | search]
    ranked = [RankedMethod(test.search_label, before, dict.fromkeys(before, test.ranks))]
    for each in bar(configured, "compare", "method"):
        method = each.method(transformer)
        measured = measure_method(test, method, whitening, ray_address=settings.ray_address)
        details = method_details(each, measured)
        cost = {
            "ms_per_query": details["ms_per_query"],
            "prepare_seconds": round(measured.prepare_seconds, 2),
            "bytes_per_image": round(method.bytes_per_image(space)),
        }
        rows.append(_row(each.label, measured.num_rerank, measured.results) | cost)
        details |= of_rrt if "rrt" in each.names else {}
        ranked.append(RankedMethod(each.label, measured.results, measured.rankings, details))
    names = ["global", *wanted]
    for row, gains in zip(rows, paired_gains([method.results for method in ranked], names.index(settings.against))):
        row |= gains
    save_rankings(settings.temp_dir, test, ranked, protocol_of_search(test, settings.dataset, settings.whitening))
    return rows


def names_compared(settings: CompareSettings, store) -> list[str]:
    """The methods asked for, or all that have what they need to score the images of a store."""
    if settings.methods == "baselines":
        return baselines(settings.max_local(), settings.open_fusion() if settings.resume else None)
    if settings.methods is not None:
        return settings.methods
    asmk, late = ((settings.rerankers or {}).get(name, {}) for name in ("asmk", "late"))
    lacking = {"rrt": not settings.resume, "asmk": not asmk.get("codebook")}
    # A network that was named is a mistake where it does not fit; the shipped one is of lite0's descriptors alone.
    lacking["late"] = not late.get("model") and not _fits(Late(), store)
    names = [name for name in METHODS if not lacking.get(name)]
    names += [*_CHAINS, *(_RRT_CHAINS if settings.resume else ())]
    if store.local_counts().any():
        return names
    return [name for name in names if not any(method_class(each).of_locals for each in name.split("+"))]


def _fits(method: Late, store) -> bool:
    try:
        method.encoder.check_sizes(store)
    except InputError:
        return False
    return True


def _row(label, candidates, results):
    numbers = summary(results)
    row = {"method": label, "candidates": candidates, "map": {}, "interval": {}}
    for protocol in results:
        row["map"][protocol] = numbers[f"{protocol[0].upper()}_map"]
        row["interval"][protocol] = numbers[f"{protocol[0].upper()}_map_95"]
    return row


def header(rows: list[dict]) -> list[str]:
    """Titles of the columns; protocols are those of the ground truth."""
    protocols = [name.capitalize() for name in rows[0]["map"]]
    return ["method", "candidates", *protocols, "gain", "p (Holm)", *_TITLES]


def cells(row: dict) -> list[str]:
    """The texts of a row under header()."""
    maps = []
    for protocol, value in row["map"].items():
        interval = row["interval"][protocol]
        maps.append("-" if value is None else f"{value:.2f} ({interval[0]:.1f}–{interval[1]:.1f})")
    gain = gain_text(row | {"p_holm": None})
    candidates = "all" if row["candidates"] is None else str(row["candidates"])
    return [
        row["method"],
        candidates,
        *maps,
        gain,
        p_text(row["p_holm"]),
        f"{row['ms_per_query']:.1f}",
        f"{row['prepare_seconds']:.1f}",
        f"{row['bytes_per_image']:.0f}",
    ]


def as_markdown(rows: list[dict]) -> str:
    """A Markdown table."""
    titles = header(rows)
    return as_lines([titles, ["---"] + ["---:"] * (len(titles) - 1), *map(cells, rows)])


def as_csv(rows: list[dict]) -> str:
    """Plain numbers, a column for each end of an interval."""
    maps = [f"{name}_{what}" for name in rows[0]["map"] for what in ("map", "low", "high")]
    costs = ["ms_per_query", "prepare_seconds", "bytes_per_image"]
    lines = [["method", "candidates", *maps, "gain", "gain_low", "gain_high", "p", "p_holm", *costs]]
    for row in rows:
        numbers = []
        for name, value in row["map"].items():
            numbers += [value, *row["interval"][name]]
        gains = [row["gain"], *(row["gain_interval"] or (None, None)), row["p"], row["p_holm"]]
        lines.append([row["method"], row["candidates"], *numbers, *gains, *(row[name] for name in costs)])
    return csv_text(lines)


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
    protocol = chosen_protocol(rows[0]["map"])
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


def write_comparison(folder: Path, rows: list[dict[str, Any]], settings: CompareSettings) -> None:
    """comparison.md, .csv, .tex and .json, accuracy_time.png and accuracy_memory.png."""
    for suffix, text in (("md", as_markdown(rows)), ("csv", as_csv(rows)), ("tex", as_latex(rows))):
        write_bytes(folder / f"comparison.{suffix}", text.encode())
    named = {name: getattr(settings, name) for name in ("whitening", "resume")}
    files = {name: path and str(path) for name, path in named.items()}
    write_json(folder / "comparison.json", {"rows": rows, "against": settings.against} | files)
    draw(rows, folder / "accuracy_time.png", "ms_per_query", "milliseconds a query, search not counted")
    draw(rows, folder / "accuracy_memory.png", "bytes_per_image", "bytes held of a gallery image")
