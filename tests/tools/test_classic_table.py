"""The table of the classic Oxford5k and Paris6k from made-up files in the form of the original ones."""

import csv

import numpy as np
import pytest
from commands import error_of, files_below

from rrt.commands.classic_table import main
from rrt.errors import InputError
from rrt.evaluation.classic_table import classic_precisions, format_landmarks, landmark_table
from rrt.evaluation.trec import write_run
from rrt.formats.lists import read_image_list, write_image_list
from rrt.search.table import save_neighbors

GRADES = ("good", "ok", "junk")
LANDMARKS = [f"{name}_{number}" for name in ("all_souls", "ashmolean", "keble") for number in range(1, 6)]


@pytest.fixture
def world(tmp_path):
    """Oxford's layout in small: 15 queries of 3 landmarks in a gallery of 60 images; (folder, texts, rankings [15,
    60])."""
    generator = np.random.default_rng(0)
    gallery = [f"oxford_{i:06d}" for i in range(60)]
    queries = generator.permutation(gallery)[:15]
    texts = tmp_path / "gt"
    texts.mkdir()
    for landmark, picture in zip(LANDMARKS, queries):
        graded = generator.permutation(gallery)[:20]
        (texts / f"{landmark}_query.txt").write_text(f"oxc1_{picture} 136.5 34.1 648.5 955.7\n")
        for grade, names in zip(GRADES, (graded[:4], graded[4:9], graded[9:])):
            (texts / f"{landmark}_{grade}.txt").write_text("\n".join(names) + "\n")
    # The lists are in another order than the files.
    order = generator.permutation(15)
    for name, stems in (("test_query.txt", queries[order]), ("test_gallery.txt", generator.permutation(gallery))):
        write_image_list(
            tmp_path / name, [f"jpg/{stem}.jpg" for stem in stems], [0] * len(stems), [(9, 9)] * len(stems)
        )
    ranks = np.array([generator.permutation(60) for _ in range(15)])
    save_neighbors(tmp_path / "nn.pkl", ranks)
    return tmp_path, texts, ranks


def lists(folder):
    return [read_image_list(folder / name) for name in ("test_query.txt", "test_gallery.txt")]


def slow_precision(texts, landmark, ranked):
    """Area under the precision-recall curve as the original program walks it, an image at a time."""
    sets = {grade: set((texts / f"{landmark}_{grade}.txt").read_text().split()) for grade in GRADES}
    right = sets["good"] | sets["ok"]
    old_recall, old_precision, area, found, seen = 0.0, 1.0, 0.0, 0, 0
    for name in ranked:
        if name in sets["junk"]:
            continue
        found += name in right
        seen += 1
        recall, precision = found / len(right), found / seen
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def stem(name):
    return name.removeprefix("jpg/").removesuffix(".jpg")


def slow_precisions(folder, texts, ranks):
    query, gallery = lists(folder)
    ranked = {stem(name): [stem(gallery.names[place]) for place in row] for name, row in zip(query.names, ranks)}
    pictures = {name: (texts / f"{name}_query.txt").read_text().split()[0].removeprefix("oxc1_") for name in LANDMARKS}
    return {name: slow_precision(texts, name, ranked[pictures[name]]) for name in LANDMARKS}, ranked, pictures


def test_a_neighbour_table_and_runs_give_what_the_original_program_computes(world):
    folder, texts, ranks = world
    expected, ranked, pictures = slow_precisions(*world)
    # Runs name the images as the lists do, or by their stems and the queries as the files do; lines in any order.
    write_run(
        folder / "a.run",
        [f"jpg/{name}.jpg" for name in ranked],
        [[f"jpg/{name}.jpg" for name in row] for row in ranked.values()],
        "a",
    )
    write_run(folder / "b.run", LANDMARKS[::-1], [ranked[pictures[name]] for name in LANDMARKS[::-1]], "b")
    for ranking in ("nn.pkl", "a.run", "b.run"):
        found, mean = classic_precisions(texts, folder / ranking, *lists(folder))
        assert list(found) == LANDMARKS and found == pytest.approx(expected, abs=1e-12)
        assert mean == pytest.approx(np.mean(list(expected.values())))


def test_a_query_that_a_run_lacks_has_found_nothing(world):
    folder, texts, _ = world
    write_run(folder / "x.run", ["keble_2"], [["oxford_000001"]], "x")
    found, _ = classic_precisions(texts, folder / "x.run", *lists(folder))
    assert found["keble_3"] == 0


def test_a_row_is_a_landmark_with_its_queries_and_their_mean():
    rows = landmark_table({"all_souls_1": 0.5, "all_souls_2": 1.0, "keble_10": 0.125, "keble_9": float("nan")})
    assert rows == [
        ["landmark", "1", "2", "mean"],
        ["all_souls", "50.00", "100.00", "75.00"],
        ["keble", "-", "12.50", "12.50"],
        ["mean of 4 queries", "", "", "54.17"],
    ]


def test_the_forms_hold_the_same_cells():
    tables = {
        "a.pkl": landmark_table({"all_souls_1": 0.5, "all_souls_2": 1.0, "keble_1": 0.25}),
        "b.run": landmark_table({"all_souls_1": 1.0}),
    }
    markdown, table, latex = (format_landmarks(tables, form) for form in ("markdown", "csv", "latex"))
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")
    ]
    assert [row for row in cells if not row[0].startswith("--")] == tables["a.pkl"] + tables["b.run"]
    parsed = list(csv.reader(table.splitlines()))
    assert (
        parsed[1:] == [[name, *row] for name, rows in tables.items() for row in rows[1:]] and parsed[0][0] == "method"
    )
    assert r"all\_souls & 50.00 & 100.00 & 75.00 \\" in latex and latex.count(r"\begin{tabular}{lrrr}") == 1


def test_the_command_prints_the_table_or_writes_it(world, monkeypatch, capsys):
    folder, texts, _ = world
    command = ["x", str(texts), str(folder / "nn.pkl"), "--data_dir", str(folder)]
    monkeypatch.setattr("sys.argv", command)
    main()
    printed = capsys.readouterr().out
    assert "| all_souls " in printed and "| mean of 15 queries " in printed
    monkeypatch.setattr("sys.argv", [*command, "--out", str(folder / "t.md")])
    main()
    assert (folder / "t.md").read_text() == printed


def drop(name):
    def edit(folder):
        (folder / name).unlink()

    return edit


def write(name, text):
    def edit(folder):
        (folder / name).write_text(text)

    return edit


def shorten_gallery(folder):
    images = lists(folder)[1]
    write_image_list(folder / "test_gallery.txt", images.names[1:], images.labels[1:], images.sizes[1:])


def other_queries(folder):
    query, gallery = lists(folder)
    write_image_list(folder / "test_query.txt", ["jpg/new.jpg", *query.names[1:]], query.labels, query.sizes)


def same_stems(folder):
    """Another folder of the gallery holds images of the same file names."""
    gallery = lists(folder)[1]
    names = gallery.names + [f"more/{stem(name)}.jpg" for name in gallery.names]
    write_image_list(folder / "test_gallery.txt", names, [0] * len(names), [(9, 9)] * len(names))


@pytest.mark.parametrize(
    "edit, options, part",
    [
        (drop("gt/keble_1_ok.txt"), [], "keble_1_ok.txt: cannot be read"),
        (write("gt/keble_1_query.txt", "oxc1_x 1 2"), [], "keble_1_query.txt: expected one line"),
        (write("gt/keble_1_junk.txt", "elsewhere"), [], "keble_1_junk.txt: names 'elsewhere', which is not in"),
        (shorten_gallery, ["--allow_missing"], "gallery position 59, the gallery has 59 images"),
        (other_queries, [], "test_query.txt: lacks the query 'oxford_"),
        (drop("nn.pkl"), [], "nn.pkl"),
        (write("x.run", "all_souls_9 Q0 oxford_000001 1 1 t"), ["x.run"], "x.run: 'all_souls_9' is no query"),
        (write("x.run", "keble_1 Q0 new 1 1 t"), ["x.run"], "x.run: 'new' (query 'keble_1') is not in the gallery"),
        (
            write("x.run", "keble_1 Q0 jpg/oxford_000001.jpg 1 2 t\nkeble_1 Q0 oxford_000001 2 1 t"),
            ["x.run"],
            "lists one image under two names",
        ),
        (drop("test_gallery.txt"), [], "test_gallery.txt"),
        (write("y", ""), ["--out", "t.pdf"], "--out t.pdf: expected a name that ends in .md, .csv, .tex"),
        (same_stems, [], "_1_good.txt: 'oxford_"),
        (same_stems, [], " may be 'jpg/oxford_"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(world, monkeypatch, capsys, edit, options, part):
    folder, _, _ = world
    edit(folder)
    monkeypatch.chdir(folder)
    before = files_below(folder)
    assert part in error_of(main, ["gt", "nn.pkl", *options, "--data_dir", "."], monkeypatch, capsys)
    assert files_below(folder) == before


def test_a_folder_without_the_files_is_refused(world):
    folder, _, _ = world
    (folder / "empty").mkdir()
    for texts in (folder / "empty", folder / "absent"):
        with pytest.raises(InputError, match="name the unpacked folders|no such folder"):
            classic_precisions(texts, folder / "nn.pkl", *lists(folder))


def test_images_of_one_file_name_are_told_apart_by_their_folders(world):
    """The files name the images of one folder by their whole names; runs may shorten names that one image has."""
    folder, texts, ranks = world
    expected, ranked, pictures = slow_precisions(*world)
    same_stems(folder)
    for file in texts.iterdir():
        lines = file.read_text().replace("oxc1_oxford", "oxc1_jpg/oxford").splitlines()
        file.write_text("\n".join(line if "oxc1" in line else f"jpg/{line}" for line in lines))
    write_run(
        folder / "a.run", LANDMARKS, [[f"jpg/{name}.jpg" for name in ranked[pictures[n]]] for n in LANDMARKS], "a"
    )
    for ranking in ("nn.pkl", "a.run"):
        assert classic_precisions(texts, folder / ranking, *lists(folder))[0] == pytest.approx(expected, abs=1e-12)
    write_run(folder / "b.run", LANDMARKS[:1], [[next(iter(ranked))]], "b")
    with pytest.raises(InputError, match="b.run: 'oxford_.*may be 'jpg/.*' or 'more/"):
        classic_precisions(texts, folder / "b.run", *lists(folder))
