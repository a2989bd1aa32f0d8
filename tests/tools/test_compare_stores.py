"""tools/compare_stores.py: rerankers over smaller stores of one made-up test set, in the test's own process."""

import csv
import io
import json

import pytest
from reranking import make_test_world, toy_dataset, typed

from rrt.commands import compare_stores as tool
from rrt.errors import InputError
from rrt.evaluation.comparison import CompareSettings, compare
from rrt.evaluation.store_comparison import CompareStoresSettings, as_csv, as_markdown, compare_stores
from rrt.rerankers.build import all_default_settings
from rrt.store.store import Store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    (root / "test").mkdir()
    make_test_world(root / "test", landmarks=4, seed=1, local_dim=128)
    return root


def settings(root, **given):
    given = {"temp_dir": str(root / "out"), "cpu": True} | given
    return typed(CompareStoresSettings, toy_dataset(root), {}, **given)


@pytest.fixture(scope="module")
def rows(world):
    given = settings(world, variants=["whole", "2", "int8", "bits 4"], methods=["geometric"])
    return compare_stores(given)


def test_every_store_is_measured_and_the_whole_one_as_by_compare(world, rows, tmp_path):
    assert [(row["store"], row["method"]) for row in rows] == [
        ("", "global"),
        ("whole", "geometric"),
        ("2", "geometric"),
        ("int8", "geometric"),
        ("bits 4", "geometric"),
    ]
    given = {"methods": ["geometric"], "temp_dir": str(tmp_path / "out"), "cpu": True}
    plain = compare(typed(CompareSettings, toy_dataset(world), {}, **given))
    assert rows[0]["map"] == plain[0]["map"] and rows[1]["map"] == plain[1]["map"]
    assert rows[1]["held_bytes"] == plain[1]["bytes_per_image"]
    assert set(rows[1]["gain"].values()) == {0.0}
    for row in rows[2:]:
        for protocol, gain in row["gain"].items():
            assert gain == pytest.approx(row["map"][protocol] - rows[1]["map"][protocol], abs=0.011)


def test_stores_are_as_their_names_say(world, rows):
    sizes = {row["store"]: row["file_bytes"] for row in rows[1:]}
    for name, (dtype, most) in {
        "whole": ("float16", None),
        "2": ("float16", 2),
        "int8": ("int8", None),
        "bits 4": ("bits", 4),
    }.items():
        path = world / "out" / name.replace(" ", "_") / "delg_toy.h5"
        with Store(path) as store, Store(world / "test/delg_toy.h5") as source:
            assert store.local_dtype == dtype
            assert (store.local_counts() == source.local_counts(most)).all()
            assert sizes[name] == round(path.stat().st_size / len(store))
    held = {row["store"]: row["held_bytes"] for row in rows[1:]}
    assert held["bits 4"] < held["int8"] < held["whole"] and held["2"] < held["whole"]


def test_tables_hold_a_line_for_each_row(rows):
    markdown = as_markdown(rows).splitlines()
    assert len(markdown) == 2 + len(rows) and "| whole |" in markdown[3]
    table = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [float(line["medium_map"]) for line in table] == [row["map"]["medium"] for row in rows]


def test_the_command_writes_its_tables(world, tmp_path, monkeypatch, rows, capsys):
    monkeypatch.setattr(tool, "compare_stores", lambda *args: rows)
    tool.main({"temp_dir": str(tmp_path), "dataset": {}, "model": {}} | all_default_settings())
    assert json.loads((tmp_path / "stores.json").read_text())["rows"][1]["map"] == rows[1]["map"]
    assert (tmp_path / "stores.md").read_text() in capsys.readouterr().out and (tmp_path / "stores.csv").exists()


@pytest.mark.parametrize(
    "given, named",
    [
        ({"variants": ["int7"]}, "'int7'"),
        ({"variants": ["int8 bits"]}, "'int8 bits'"),
        ({"variants": "whole"}, "a list of texts"),
        ({"variants": [""]}, "''"),
        ({"methods": ["nothing"]}, "nothing"),
        ({"methods": "rrt"}, "a list of names"),
        ({"codes_from": "no/such.h5", "variants": ["bits"]}, "no/such.h5"),
    ],
)
def test_wrong_settings_are_named_before_any_store_is_made(world, tmp_path, given, named):
    with pytest.raises(InputError, match=named):
        compare_stores(settings(world, temp_dir=str(tmp_path / "new"), **given))
    assert not (tmp_path / "new").exists()
