"""Rerankers on a test set whose store is cut, rounded or coded: figures, costs and tables."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rrt.command_line.settings import FilePath, setting, settings
from rrt.datasets.configured import open_test
from rrt.datasets.sets import neighbors_path
from rrt.errors import InputError
from rrt.evaluation.comparison import CompareSettings
from rrt.evaluation.methods import measure_method
from rrt.evaluation.reranking import evaluate_global, summary
from rrt.evaluation.tables import as_lines, csv_text
from rrt.files.atomic import write_bytes, write_json
from rrt.formats.ground_truth import chosen_protocol
from rrt.rerankers.base import SearchSpace
from rrt.search.table import origin_path
from rrt.store.compress import compress_store, make_codes
from rrt.store.values import LOCAL_DTYPES

VARIANTS = ["whole", "100", "50", "25", "int8", "int8 50", "bits", "bits 100", "bits 50", "bits 25"]


@settings()
class CompareStoresSettings(CompareSettings):
    """Of tools/compare_stores.py."""

    temp_dir: FilePath = setting(
        "folder for the table, the stores and the record of the run", default="logs/compare_stores"
    )
    methods: Any = setting("list of methods; None: geometric, and rrt with resume=", default=None)
    variants: Any = setting(
        "list of stores, each 'whole', or a type and a number of local descriptors, as 'int8 50'", default=VARIANTS
    )
    codes_from: FilePath | None = setting(
        "store of training images on which the codes of 'bits' are learned; None: a random rotation", default=None
    )
    codes_list: FilePath | None = setting("image list: which images of codes_from; None: all", default=None)


def read_variant(text) -> tuple[str | None, int | None]:
    """(type of the local descriptors, how many are kept of an image) of a text like "int8 50"; None: as it is.
    InputError."""
    local_dtype = max_local = None
    words = text.split() if isinstance(text, str) else []
    for word in [] if words == ["whole"] else words:
        if word in (*LOCAL_DTYPES, "bits") and local_dtype is None:
            local_dtype = word
        elif word.isdecimal() and max_local is None:
            max_local = int(word)
        else:
            words = []
    if not words:
        raise InputError(
            f"setting variants: {text!r}; expected 'whole', or one of {', '.join(LOCAL_DTYPES)}, bits and a number"
            " of local descriptors, or one of the two, as 'int8 50'"
        )
    return local_dtype, max_local


def compare_stores(settings: CompareStoresSettings) -> list[dict[str, Any]]:
    """A row for every variant and method: store, method, map {protocol: %}, gain {protocol: % against the first
    variant}, gain_interval {protocol: [low, high]} (of a bootstrap over queries, paired), file_bytes and held_bytes of
    an image (in the file; in memory for this method), ms_per_query. Raises InputError before the long work."""
    configured = settings.configured(settings.methods or (["rrt"] if settings.resume else []) + ["geometric"])
    if not isinstance(settings.variants, list | tuple) or not settings.variants:
        raise InputError(f"setting variants={settings.variants!r}: expected a list of texts, as ['whole','int8 50']")
    variants = {text: read_variant(text) for text in settings.variants}
    whitening, transformer = settings.open_whitening(), settings.open_transformer(configured)
    source = open_test(settings.dataset)
    codes, note = None, None
    if any(local_dtype == "bits" for local_dtype, _ in variants.values()):
        codes, note = make_codes(source.store.local_dim, settings.codes_from, settings.codes_list)
    before = evaluate_global(source)
    search = {"file_bytes": None, "held_bytes": 4 * _width(source, whitening), "ms_per_query": 0.0}
    rows: list[dict[str, Any]] = [{"store": "", "method": source.search_label} | _figures(before, before) | search]
    first: dict[str, Any] = {}
    for text, (local_dtype, max_local) in variants.items():
        folder = Path(settings.temp_dir) / text.replace(" ", "_")
        coding = (codes, note) if local_dtype == "bits" else (None, None)
        paths = _make_variant(source, settings.dataset, folder, local_dtype, max_local, *coding)
        test = open_test(replace(settings.dataset, test_data_dir=str(folder)))
        space = SearchSpace(test.store, test.query_index, test.gallery_index, whitening)
        for each in configured:
            method = each.method(transformer)
            measured = measure_method(test, method, whitening)
            rows.append(
                {"store": text, "method": each.label}
                | _figures(measured.results, first.setdefault(each.label, measured.results))
                | {
                    "file_bytes": round(sum(path.stat().st_size for path in paths) / len(test.store)),
                    "held_bytes": round(method.bytes_per_image(space)),
                    "ms_per_query": measured.ms_per_query,
                }
            )
    return rows


def _width(test, whitening) -> int:
    """Dimensions of the global descriptors that are compared."""
    return SearchSpace(test.store, test.query_index[:1], test.query_index[:1], whitening).gallery.shape[1]


def _make_variant(source, dataset, folder, local_dtype, max_local, codes, note):
    """The stores of a variant, beside links to all else of the test set -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    neighbors = neighbors_path(source.folder, dataset.desc_name)
    for path in (
        *(source.folder / name for name in (*dataset.test_txt, dataset.test_gnd_file)),
        neighbors,
        origin_path(neighbors),
    ):
        link = folder / path.name
        link.unlink(missing_ok=True)
        if path.exists():
            link.symlink_to(path.resolve())
    # Another compression of the same name is written over.
    stores = [source.store] if source.query_store is None else [source.store.first, source.query_store]
    return [
        compress_store(store, folder / store.path.name, local_dtype, max_local, None, codes, note) for store in stores
    ]


def _figures(results, before) -> dict:
    numbers = summary(results, before)
    keys = {protocol: protocol[0].upper() for protocol in results}
    return {
        "map": {name: numbers[f"{key}_map"] for name, key in keys.items()},
        "gain": {name: numbers[f"{key}_gain"] for name, key in keys.items()},
        "gain_interval": {name: numbers[f"{key}_gain_95"] for name, key in keys.items()},
    }


def as_markdown(rows: list[dict]) -> str:
    """The change is that of Medium (classic: of all) against the first store, with its interval."""
    protocols = list(rows[0]["map"])
    told, maps = chosen_protocol(protocols), map(str.capitalize, protocols)
    lines = [["store", "bytes an image in the file", "method", "held", *maps, "change", "ms a query"]]
    lines.append(["---", "---:", "---", *["---:"] * (len(protocols) + 3)])
    for row in rows:
        change = ""
        if row["store"] and row["gain"][told] is not None:
            low, high = row["gain_interval"][told]
            change = f"{row['gain'][told]:+.2f} ({low:+.1f} to {high:+.1f})"
        maps = ["-" if value is None else f"{value:.2f}" for value in row["map"].values()]
        size = "" if row["file_bytes"] is None else f"{row['file_bytes']:,}"
        lines.append(
            [row["store"], size, row["method"], f"{row['held_bytes']:,}", *maps, change, f"{row['ms_per_query']:.1f}"]
        )
    return as_lines(lines)


def as_csv(rows: list[dict]) -> str:
    """Plain numbers, a column for each end of an interval."""
    protocols = list(rows[0]["map"])
    columns = [f"{name}_{what}" for name in protocols for what in ("map", "gain", "gain_low", "gain_high")]
    costs = ["file_bytes", "held_bytes", "ms_per_query"]
    lines = [["store", "method", *columns, *costs]]
    for row in rows:
        numbers = [v for name in protocols for v in (row["map"][name], row["gain"][name], *row["gain_interval"][name])]
        lines.append([row["store"], row["method"], *numbers, *(row[name] for name in costs)])
    return csv_text(lines)


def write_store_comparison(folder: Path, rows: list[dict[str, Any]], settings: CompareStoresSettings) -> None:
    """stores.md, stores.csv and stores.json."""
    for suffix, text in (("md", as_markdown(rows)), ("csv", as_csv(rows))):
        write_bytes(folder / f"stores.{suffix}", text.encode())
    named = {name: getattr(settings, name) for name in ("whitening", "resume", "codes_from")}
    write_json(folder / "stores.json", {"rows": rows} | {name: path and str(path) for name, path in named.items()})
