"""The measure of verified matches over pairs: what it counts, which pairs it draws, and wrong input."""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import make_records, unit_rows
from commands import error_of, files_below, usage_error_of
from faults import fork_workers
from hypothesis import given
from hypothesis import strategies as st

from rrt.commands.verify_pairs import main
from rrt.errors import InputError
from rrt.evaluation.verified_pairs import area_under_curve, draw_pairs, interval
from rrt.formats.ground_truth import GRADES, GroundTruth, save_ground_truth
from rrt.formats.lists import ImageList, write_image_list
from rrt.formats.revisited import RevisitedSet
from rrt.store.records import ImageRecord
from rrt.store.writer import write_store

SIZE = 640, 480
BUILDINGS, VIEWS, FEATURES = 5, 5, 40


def planted_records(names):
    """Records for names `<building>_<view>.jpg`: images of a building have its descriptors, moved as a plane moves
    within two pixels, others none in common."""
    rng, buildings, records = np.random.default_rng(0), {}, []
    rest = np.ones(FEATURES, np.float32), np.linspace(9, 1, FEATURES, dtype=np.float32)
    for name in names:
        building = name.split("_")[0]
        if building not in buildings:
            buildings[building] = unit_rows(rng, FEATURES, 64), rng.uniform((-120, -90), (120, 90), (FEATURES, 2))
        descriptors, points = buildings[building]
        moved = points @ (np.eye(2) + rng.uniform(-0.1, 0.1, (2, 2))) + (320, 240) + rng.uniform(-1, 1, (FEATURES, 2))
        records.append(
            ImageRecord(
                name,
                SIZE,
                unit_rows(rng, 1, 8)[0],
                descriptors + rng.normal(0, 0.01, descriptors.shape),
                moved.astype(np.float32),
                *rest,
            )
        )
    return records


@pytest.fixture
def folder(tmp_path):
    """Lists and ground truth of BUILDINGS buildings: a query and VIEWS images each, one of them Hard."""
    queries = [f"b{i}_q.jpg" for i in range(BUILDINGS)]
    gallery = [f"b{i}_{k}.jpg" for i in range(BUILDINGS) for k in range(VIEWS)]
    for file, names in (("query.txt", queries), ("gallery.txt", gallery)):
        write_image_list(tmp_path / file, names, np.zeros(len(names), int), np.tile(SIZE, (len(names), 1)))
    places = np.arange(BUILDINGS * VIEWS).reshape(BUILDINGS, VIEWS)
    save_ground_truth(
        tmp_path / "gnd.pkl",
        [name[:-4] for name in gallery],
        [name[:-4] for name in queries],
        [{"bbx": [0, 0, *SIZE], "easy": mine[1:], "hard": mine[:1], "junk": []} for mine in places],
    )
    write_store(tmp_path / "planted.h5", planted_records(queries + gallery))
    write_store(tmp_path / "random.h5", make_records(queries + gallery, num_local=60, local_dim=4, size=SIZE))
    return tmp_path


def arguments(folder, store="planted.h5", **changed):
    options = {
        "store": folder / store,
        "ground_truth": folder / "gnd.pkl",
        "query_list": folder / "query.txt",
        "gallery_list": folder / "gallery.txt",
        "pairs": 20,
        "num_workers": 1,
        "output": folder / "pairs.csv",
    } | changed
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """main() with options -> what it printed, and the rows it wrote."""

    def run(*store, **changed):
        monkeypatch.setattr(sys, "argv", ["verify_pairs.py", *arguments(folder, *store, **changed)])
        assert main() == 0
        with open(folder / "pairs.csv", newline="") as file:
            return capsys.readouterr().out, list(csv.DictReader(file))

    return run


def area(printed):
    return float(printed.split("ROC curve")[1].split()[0])


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_planted_geometry_is_told_from_other_buildings_without_an_error(run):
    printed, rows = run()
    assert area(printed) == 1 and "1.000 to 1.000 over 5 queries" in printed
    assert list(rows[0]) == ["first", "second", "same", "matches", "inliers"] and len(rows) == 20
    for row in rows:
        same = row["first"][:2] == row["second"][:2]
        assert row["same"] == str(int(same)) and not (same and row["second"].endswith("_0.jpg"))
        assert (row["matches"], row["inliers"]) == (("40", "40") if same else ("0", "0"))
    quartiles = [line.split()[1:] for line in printed.splitlines()[1:3]]
    assert quartiles == [["10", "40", "40", "40.0", "40", "40", "40.0"], ["10", "0", "0", "0.0", "0", "0", "0.0"]]


def test_random_descriptors_tell_nothing_though_they_match(run):
    printed, rows = run("random.h5", pairs=40)
    assert sum(int(row["inliers"]) > 0 for row in rows) > 20
    assert 0.3 < area(printed) < 0.7


def test_options_of_the_matching_and_the_choice_of_features_hold(run):
    def counts(column, **options):
        return [int(row[column]) for row in run(**options)[1] if row["same"] == "1"]

    assert set(counts("matches", max_features=7)) == {7}
    assert set(counts("matches", score_threshold=5)) == {20}
    assert set(counts("matches", max_distance=0.01)) == {0}
    assert max(counts("matches", border=0.4)) < 40
    assert max(counts("inliers", residual=0.5)) < 40


def test_worker_processes_count_the_same(run, monkeypatch):
    fork_workers(monkeypatch)
    assert run("random.h5", num_workers=2) == run("random.h5")


def test_another_seed_draws_other_pairs_and_the_same_seed_the_same(run):
    assert run(seed=1) == run(seed=1)
    assert run(seed=1)[1] != run(seed=2)[1]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2).filter(
        lambda rows: len({same for _, same in rows}) == 2
    )
)
def test_area_is_the_chance_of_the_right_order_with_ties_half(rows):
    counts, same = np.transpose(rows)
    chances = [(a > b) + (a == b) / 2 for a in counts[same == 1] for b in counts[same == 0]]
    assert area_under_curve(counts, same) == pytest.approx(np.mean(chances))


def test_the_interval_is_that_of_areas_of_queries_drawn_one_by_one():
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(
        {"first": rng.choice(list("abcdefgh"), 60), "same": np.arange(60) % 2 == 0, "inliers": rng.integers(0, 9, 60)}
    )
    pairs.loc[pairs["same"], "inliers"] += 2
    groups = [group for _, group in pairs.groupby("first")]
    drawn = [pd.concat([groups[i] for i in rng.integers(0, 8, 8)]) for _ in range(300)]
    slow = np.quantile([area_under_curve(some["inliers"], some["same"]) for some in drawn], (0.025, 0.975))
    assert np.allclose(interval(pairs, 0), slow, atol=0.02)


def test_the_interval_is_wider_where_the_pairs_of_a_query_go_together():
    rng = np.random.default_rng(0)
    good, noise = np.repeat(rng.random(20) < 0.5, 10), rng.random(200)
    together = pd.DataFrame(
        {"first": np.repeat(np.arange(20), 10).astype(str), "same": np.tile([True, False], 100), "inliers": noise}
    )
    together.loc[good & together["same"], "inliers"] += 1
    scattered = together.assign(first=rng.permutation(together["first"]))
    (low, high), (least, most) = interval(together, 0), interval(scattered, 0)
    assert low < area_under_curve(together["inliers"], together["same"]) < high and high - low > 1.3 * (most - least)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def data_set(grades, queries_in_gallery=False):
    """A RevisitedSet of queries whose gallery images have these grades [queries, gallery]: 0 none, 1 easy, 2 hard, 3
    junk."""
    grades = np.asarray(grades)
    queries = [f"q{i}.jpg" for i in range(len(grades))]
    gallery = [f"q{i}.jpg" if queries_in_gallery and i < len(grades) else f"g{i}.jpg" for i in range(grades.shape[1])]
    lists = [
        ImageList(Path("list.txt"), names, np.zeros(len(names), int), np.ones((len(names), 2), int))
        for names in (queries, gallery)
    ]
    entries = [
        {"bbx": [0, 0, 1, 1]} | {grade: np.flatnonzero(row == value) for value, grade in enumerate(GRADES, 1)}
        for row in grades
    ]
    return RevisitedSet(*lists, GroundTruth(Path("gnd.pkl"), gallery, queries, entries))


@st.composite
def graded(draw):
    queries, gallery = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    return draw(
        st.lists(st.lists(st.integers(0, 3), min_size=gallery, max_size=gallery), min_size=queries, max_size=queries)
    )


@given(graded(), st.booleans(), st.integers(1, 12), st.integers(0, 99))
def test_pairs_are_of_their_kind_unique_balanced_and_the_same_for_a_seed(grades, queries_in_gallery, half, seed):
    data = data_set(grades, queries_in_gallery)
    place = {name: i for i, name in enumerate(data.gallery.names)}
    usable = {
        name: row
        for name, row in zip(data.query.names, np.array(grades))
        if any(v == 1 and data.gallery.names[i] != name for i, v in enumerate(row))
        and any(v == 0 and data.gallery.names[i] != name for i, v in enumerate(row))
    }
    enough = all(sum((row == grade).sum() for row in usable.values()) >= half for grade in (0, 1))
    try:
        drawn = draw_pairs(data, 2 * half, seed)
    except InputError:
        # Where queries are in the gallery, fewer pairs are left than grades are given.
        assert queries_in_gallery or not enough
        return
    assert enough and drawn.equals(draw_pairs(data, 2 * half, seed))
    assert drawn["same"].tolist() == [True] * half + [False] * half
    pairs = list(zip(drawn["first"], drawn["second"]))
    assert len(set(map(frozenset, pairs))) == 2 * half and all(len(set(pair)) == 2 for pair in pairs)
    assert all(
        usable[first][place[second]] == (1 if same else 0) for first, second, same in drawn.itertuples(index=False)
    )
    if not queries_in_gallery:
        for same, grade in ((True, 1), (False, 0)):
            counts = drawn[drawn["same"] == same]["first"].value_counts().reindex(usable, fill_value=0)
            left = [counts[name] for name, row in usable.items() if counts[name] < (row == grade).sum()]
            assert not left or counts.max() - min(left) <= 1


def test_both_halves_have_the_same_queries_and_every_candidate_can_be_drawn():
    grades = np.zeros((30, 60), int)
    grades[:, :6] = 1
    data = data_set(grades)
    drawn = draw_pairs(data, 20, 0)
    assert set(drawn["first"][:10]) == set(drawn["first"][10:]) and drawn["first"][:10].is_unique
    seen = pd.concat([draw_pairs(data, 20, seed) for seed in range(60)])
    assert seen["first"].nunique() == 30 and seen["second"].nunique() == 60


def test_classic_ground_truth_pairs_good_pictures_and_no_query_with_itself():
    data = data_set([[1, 1, 2, 0, 0], [1, 1, 2, 0, 0]], queries_in_gallery=True)
    for entry in data.truth.gnd:
        entry["good"], entry["ok"] = entry.pop("easy"), entry.pop("hard")
    with pytest.raises(InputError, match="1 pairs of the same building"):
        draw_pairs(data, 4, 0)  # the two queries are one pair, whichever is asked for
    drawn = draw_pairs(data, 2, 0)
    assert set(drawn.iloc[0, :2]) == {"q0.jpg", "q1.jpg"} and drawn.iloc[1, 1] in ("g3.jpg", "g4.jpg")


def test_queries_may_lie_in_a_store_of_their_own(run, folder):
    """Found by its name, or given; images of the gallery under their names do not count."""
    expected = run()
    names = [
        [f"b{i}_q.jpg" for i in range(BUILDINGS)],
        [f"b{i}_{k}.jpg" for i in range(BUILDINGS) for k in range(VIEWS)],
    ]
    records = planted_records(names[0] + names[1])
    for store, queries in (("apart.h5", "apart_queries.h5"), ("given.h5", "crops.h5")):
        write_store(
            folder / store, [*make_records(names[0], num_local=60, local_dim=64, global_dim=8), *records[BUILDINGS:]]
        )
        write_store(folder / queries, records[:BUILDINGS])
    assert run("apart.h5") == run("given.h5", query_store=folder / "crops.h5") == expected
    assert run("given.h5") != expected


# ---- wrong input -----------------------------------------------------------------------------------------------------


def test_wrong_input_is_named_in_one_line_and_nothing_is_written(folder, monkeypatch, capsys):
    (folder / "cut.h5").write_bytes((folder / "planted.h5").read_bytes()[:3000])
    (folder / "empty.pkl").touch()
    (folder / "short.txt").write_text("b0_q.jpg,0,640,480\n")
    names = [f"b{i}_q.jpg" for i in range(BUILDINGS)]
    write_store(folder / "queries.h5", planted_records(names))
    before = files_below(folder)
    for changed, words in (
        (
            {"pairs": 200},
            "20 pairs of the same building (a query and its Easy or good images) where 100 are asked for; lower "
            "--pairs",
        ),
        ({"pairs": 7}, "--pairs 7: expected an even number"),
        ({"pairs": 0}, "--pairs 0"),
        ({"seed": -1}, "--seed -1"),
        ({"num_workers": 0}, "--num_workers 0"),
        ({"max_features": 0}, "--max_features 0"),
        ({"border": 0.5}, "--border 0.5"),
        ({"residual": 0}, "--residual 0.0"),
        ({"ratio": 0}, "--ratio 0.0"),
        ({"store": folder / "none.h5"}, "none.h5"),
        ({"store": folder / "cut.h5"}, "cut.h5"),
        ({"store": folder / "queries.h5"}, "of gallery.txt"),
        ({"ground_truth": folder / "empty.pkl"}, "empty.pkl"),
        ({"ground_truth": folder / "gnd.txt"}, "gnd.txt: ground truth is kept in"),
        ({"query_list": folder / "short.txt"}, "short.txt has 1"),
        ({"query_list": folder / "gallery.txt"}, "take the ground truth and the lists of one data set"),
        ({"gallery_list": folder / "missing.txt"}, "missing.txt: cannot be read"),
        ({"output": folder}, str(folder)),
    ):
        assert words in error_of(main, arguments(folder, **changed), monkeypatch, capsys), changed
        assert files_below(folder) == before, changed
    not_a_number = arguments(folder, residual="nan")
    assert "--residual: 'nan' is no finite number" in usage_error_of(main, not_a_number, monkeypatch, capsys)
    assert files_below(folder) == before
