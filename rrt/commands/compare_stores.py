"""What fewer bytes for an image cost: rerankers on a test set whose store is cut, rounded or coded, as one table.

    python tools/compare_stores.py with temp_dir=logs/stores dataset.landmarks model.RRT
    resume=logs/rrt_landmarks/best.pt
        fusion=logs/rrt_landmarks/fusion.json codes_from=data/landmarks_train/delg_r50.h5
        "variants=['whole','int8','bits 50']"

Every variant is made of the test set's store with rrt.store.compress (words: float16 or int8 or bits, of local
descriptors; a number, the local descriptors kept of an image) and measured with the same neighbours, so that reranking
alone differs. bits are 128-bit codes by ITQ learned on codes_from (a store of training images; codes_list, a list of
some of them), or a random rotation without it. Takes the settings of tools/compare.py and of the methods. Writes
stores.md, stores.csv and stores.json into temp_dir, and the stores, each in a folder of its own.
"""

import csv
import io
from pathlib import Path

from rrt.command_line.sacred import add_settings, make_experiment, plain_config
from rrt.commands.compare import SETTINGS as COMPARE_SETTINGS
from rrt.configs import dataset_ingredient, model_ingredient
from rrt.datasets.configured import open_test
from rrt.datasets.sets import neighbors_path
from rrt.errors import InputError
from rrt.evaluation.methods import measure_method
from rrt.evaluation.reranking import evaluate_global, summary
from rrt.evaluation.run import open_reranker, write_json
from rrt.files.atomic import atomic_path
from rrt.rerankers.base import SearchSpace
from rrt.rerankers.build import all_default_settings, configure
from rrt.rerankers.fusion import read_fusion
from rrt.rerankers.transformer import Transformer
from rrt.search.table import origin_path
from rrt.search.whitening import load_whitening
from rrt.store.compress import compress_store, make_codes
from rrt.store.values import LOCAL_DTYPES

VARIANTS = ["whole", "100", "50", "25", "int8", "int8 50", "bits", "bits 100", "bits 50", "bits 25"]
SETTINGS = COMPARE_SETTINGS | {
    "temp_dir": ("logs/compare_stores", "folder for the table, the stores and the record of the run"),
    "methods": (None, "list of methods; None: geometric, and rrt with resume="),
    "variants": (VARIANTS, "list of stores, each 'whole', or a type and a number of local descriptors, as 'int8 50'"),
    "codes_from": (None, "store of training images on which the codes of 'bits' are learned; None: a random rotation"),
    "codes_list": (None, "image list: which images of codes_from; None: all"),
}

dataset = dataset_ingredient()
model = model_ingredient()
ex = make_experiment("compare_stores", ingredients=[dataset, model])
add_settings(ex, *({name: entry[part] for name, entry in SETTINGS.items()} for part in (0, 1)))
ex.add_config(all_default_settings())


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


def compare_stores(data: dict, network: dict, settings: dict) -> list[dict]:
    """A row for every variant and method: store, method, map {protocol: %}, gain {protocol: % against the first
    variant}, gain_interval {protocol: [low, high]} (of a bootstrap over queries, paired), file_bytes and held_bytes of
    an image (in the file; in memory for this method), ms_per_query. Raises InputError before the long work."""
    names = settings["methods"] or (["rrt"] if settings["resume"] else []) + ["geometric"]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InputError(f"setting methods={names!r}: expected a list of names, as ['geometric','rrt']")
    configured = [configure(name, settings, settings["resume"], cpu=settings["cpu"]) for name in names]
    if not isinstance(settings["variants"], (list, tuple)) or not settings["variants"]:
        raise InputError(f"setting variants={settings['variants']!r}: expected a list of texts, as ['whole','int8 50']")
    variants = {text: read_variant(text) for text in settings["variants"]}
    whitening = load_whitening(settings["whitening"]) if settings["whitening"] else None
    fusion = read_fusion(settings["fusion"], settings["lambda"], settings["temperature"])
    source = open_test(data, "test", data["max_sequence_len"])
    uses_rrt = any("rrt" in each.names for each in configured)
    transformer = Transformer(open_reranker(data, network, settings), fusion) if uses_rrt else None
    codes, note = None, None
    if any(local_dtype == "bits" for local_dtype, _ in variants.values()):
        codes, note = make_codes(source.store.local_dim, settings["codes_from"], settings["codes_list"])
    rows, first = [], {}
    for text, (local_dtype, max_local) in variants.items():
        folder = Path(settings["temp_dir"]) / text.replace(" ", "_")
        coding = (codes, note) if local_dtype == "bits" else (None, None)
        path = _make_variant(source, data, folder, local_dtype, max_local, *coding)
        here = data | {"test_data_dir": str(folder)}
        test = open_test(here, "test", data["max_sequence_len"])
        space = SearchSpace(test.store, test.query_index, test.gallery_index, whitening)
        for each in configured:
            method = each.method(transformer)
            measured = measure_method(test, method, whitening)
            before = first.setdefault(each.label, measured.results)
            rows.append(
                {"store": text, "method": each.label}
                | _figures(measured.results, before)
                | {
                    "file_bytes": round(path.stat().st_size / len(test.store)),
                    "held_bytes": round(method.bytes_per_image(space)),
                    "ms_per_query": round(1000 * measured.seconds / len(test.query_index), 2),
                }
            )
    search = evaluate_global(source)
    search = _figures(search, search) | {
        "file_bytes": None,
        "held_bytes": 4 * space.gallery.shape[1],
        "ms_per_query": 0.0,
    }
    return [{"store": "", "method": "global"} | search, *rows]


def _make_variant(source, data, folder, local_dtype, max_local, codes, note):
    """The store of a variant, beside links to all else of the test set -> its path."""
    folder.mkdir(parents=True, exist_ok=True)
    neighbors = neighbors_path(source.folder, data["desc_name"])
    for path in (
        *(source.folder / name for name in (*data["test_txt"], data["test_gnd_file"])),
        neighbors,
        origin_path(neighbors),
    ):
        link = folder / path.name
        link.unlink(missing_ok=True)
        if path.exists():
            link.symlink_to(path.resolve())
    # Another compression of the same name is written over.
    return compress_store(
        source.store, folder / Path(source.store.path).name, local_dtype, max_local, None, codes, note
    )


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
    told = "medium" if "medium" in protocols else protocols[0]
    lines = [
        [
            "store",
            "bytes an image in the file",
            "method",
            "held",
            *map(str.capitalize, protocols),
            "change",
            "ms a query",
        ]
    ]
    lines.append(["---", "---:", "---", *["---:"] * (len(protocols) + 3)])
    for row in rows:
        change = ""
        if row["store"] and row["gain"][told] is not None:
            low, high = row["gain_interval"][told]
            change = f"{row['gain'][told]:+.2f} ({low:+.1f} to {high:+.1f})"
        maps = ["" if value is None else f"{value:.2f}" for value in row["map"].values()]
        size = "" if row["file_bytes"] is None else f"{row['file_bytes']:,}"
        lines.append(
            [row["store"], size, row["method"], f"{row['held_bytes']:,}", *maps, change, f"{row['ms_per_query']:.1f}"]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def as_csv(rows: list[dict]) -> str:
    """Plain numbers, a column for each end of an interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    protocols = list(rows[0]["map"])
    columns = [f"{name}_{what}" for name in protocols for what in ("map", "gain", "gain_low", "gain_high")]
    writer.writerow(["store", "method", *columns, "file_bytes", "held_bytes", "ms_per_query"])
    for row in rows:
        numbers = [v for name in protocols for v in (row["map"][name], row["gain"][name], *row["gain_interval"][name])]
        writer.writerow(
            [row["store"], row["method"], *numbers, row["file_bytes"], row["held_bytes"], row["ms_per_query"]]
        )
    return file.getvalue()


@ex.main
def main(_config):
    """Print the table and write it as Markdown, CSV and JSON."""
    settings = plain_config(_config)
    data, network = settings.pop("dataset"), settings.pop("model")
    folder = Path(settings["temp_dir"])
    rows = compare_stores(data, network, settings)
    for name, text in (("md", as_markdown(rows)), ("csv", as_csv(rows))):
        with atomic_path(folder / f"stores.{name}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(
        folder,
        "stores.json",
        {
            "rows": rows,
            "whitening": settings["whitening"],
            "resume": settings["resume"],
            "codes_from": settings["codes_from"],
        },
    )
    print(as_markdown(rows), end="")
    print(f"wrote stores.md, .csv, .json and a store of each variant in {folder}")
    return {f"{row['store']} {row['method']}": row["map"] for row in rows}
