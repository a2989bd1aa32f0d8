"""Images of a pair: what is explained and drawn, crops, files, and wrong input."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import make_store, records_in, unit_rows
from commands import error_of, files_below
from matplotlib.patches import ConnectionPatch
from PIL import Image
from reranking import small_network

from rrt.commands.show_pair import main
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.network.checkpoint import save_checkpoint
from rrt.network.reranker import Reranker
from rrt.report.explanation import AttentionView, describe_numbers, explain_pair
from rrt.report.pair import draw_pair, write_pair
from rrt.report.pairs import draw_pairs
from rrt.report.stored_images import read_stored_image
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.geometric import Geometric
from rrt.store.records import ImageRecord
from rrt.store.store import Store
from rrt.store.writer import write_store

DIM, GLOBAL_DIM = 16, 12
BOX = (20, 30, 140, 130)
SIZES = {"query": (120, 100), "same": (160, 120), "other": (90, 200), "empty": (50, 40)}
WARP = np.array([[1.1, -0.1, 8.0], [0.05, 0.9, 6.0]])


def pixels_of(width, height, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A query cropped to BOX of an image of 200 x 150, its own descriptors moved by WARP, something else, and a
    image without local descriptors; ground truth and a checkpoint."""
    folder = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(1)
    points = generator.uniform((30, 25), (90, 75), (24, 2))
    local = unit_rows(generator, 24, DIM)
    descriptors = {"query": local, "same": local, "other": unit_rows(generator, 6, DIM), "empty": local[:0]}
    keypoints = {"query": points, "same": points @ WARP[:, :2].T + WARP[:, 2], "other": points[:6], "empty": points[:0]}
    (folder / "jpg").mkdir()
    records = []
    for seed, (name, size) in enumerate(SIZES.items()):
        count = len(descriptors[name])
        Image.fromarray(pixels_of(*((200, 150) if name == "query" else size), seed)).save(folder / f"jpg/{name}.png")
        records.append(
            ImageRecord(
                f"jpg/{name}.png",
                size,
                unit_rows(generator, 1, GLOBAL_DIM)[0],
                descriptors[name],
                keypoints[name],
                np.ones(count),
                np.linspace(9, 1, count),
            )
        )
    write_store(folder / "delg_x.h5", records)
    entry = {"bbx": [19.6, 30.4, 140.2, 129.8], "easy": [0], "hard": [], "junk": [2]}
    save_ground_truth(folder / "gnd.pkl", ["same", "other", "empty"], ["query"], [entry])
    model = small_network()
    save_checkpoint(
        folder / "best.pt", model, settings={"model": model.settings, "max_sequence_len": 20, "scale_binning": "exact"}
    )
    return folder


@pytest.fixture
def reranker(world):
    return Reranker.from_checkpoint(world / "best.pt", device="cpu")


def explain(world, query, candidate, *arguments, **options):
    return explain_pair(
        world / "delg_x.h5", query, candidate, world, *arguments, ground_truth=world / "gnd.pkl", **options
    )


def lines_of(figure):
    return [(patch.xy1, patch.xy2) for patch in figure.findobj(ConnectionPatch)]


def test_a_query_is_drawn_as_its_crop_so_that_its_keypoints_lie_where_they_were_found(world):
    """The box is rounded as the extraction does; pixel (x, y) of the crop is (x + 20, y + 30) of the image."""
    whole = pixels_of(200, 150, 0)
    pair = explain(world, "query", "same")
    assert np.array_equal(pair.pixels[0], whole[30:130, 20:140]) and np.array_equal(
        pair.pixels[1], pixels_of(160, 120, 1)
    )
    figure = draw_pair(pair)
    left, right = figure.axes
    assert left.get_xlim() == (0, 120) and left.get_ylim() == (100, 0) and right.get_xlim() == (0, 160)
    assert tuple(left.get_images()[0].get_extent()) == (0, 120, 100, 0)
    points = Store(world / "delg_x.h5").read(0).keypoints
    drawn = np.array(lines_of(figure))
    assert drawn.shape == (24, 2, 2) and np.allclose(sorted(drawn[:, 0].tolist()), sorted(points.tolist()), atol=1e-3)
    assert np.allclose(drawn[:, 1], drawn[:, 0] @ WARP[:, :2].T + WARP[:, 2], atol=0.01)
    assert np.array_equal(explain_pair(world / "delg_x.h5", "query", "same", world, box=BOX).pixels[0], pair.pixels[0])


@pytest.mark.parametrize(
    "size, keypoint, shown",
    [
        ((120, 100), (5, 5), (120, 100)),
        ((121, 101), (5, 5), (120, 100)),  # published lists count both ends of a box
        ((200, 150), (110, 90), (120, 100)),  # Paris6k's lists have the whole image's size
        ((200, 150), (190, 90), (200, 150)),  # extracted without cropping
    ],
)
def test_size_and_keypoints_of_the_store_say_whether_a_query_was_cropped(world, tmp_path, size, keypoint, shown):
    record = ImageRecord(
        "jpg/query.png", size, np.eye(GLOBAL_DIM)[0], np.eye(DIM)[:1], np.float32([keypoint]), np.ones(1), np.ones(1)
    )
    store = Store(write_store(tmp_path / "delg_x.h5", [record]))
    assert read_stored_image(store, 0, world, BOX).shape[1::-1] == shown


def test_the_turn_of_a_camera_is_ignored_as_the_extraction_ignores_it(world, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    (tmp_path / "jpg").mkdir()
    for name in SIZES:
        Image.open(world / f"jpg/{name}.png").save(tmp_path / f"jpg/{name}.png", exif=exif)
    pair = explain_pair(world / "delg_x.h5", "same", "other", tmp_path)
    assert np.array_equal(pair.pixels[0], pixels_of(160, 120, 1))


def test_names_stems_and_places_mean_the_same_pictures(world):
    for query, candidate in (("jpg/query.png", "jpg/same.png"), ("query", "same"), (0, 1), ("0", "1")):
        assert explain(world, query, candidate).names == ("jpg/query.png", "jpg/same.png")


def test_the_numbers_are_those_of_the_reranker_and_of_geometric(world, reranker):
    with Store(world / "delg_x.h5") as store:
        pair = explain(world, "query", "same", reranker)
        assert pair.numbers["logit"] == pytest.approx(reranker.score(store["query"], store["same"]), abs=1e-5)
        assert pair.numbers["sigmoid"] == pytest.approx(1 / (1 + np.exp(-pair.numbers["logit"])))
        assert pair.numbers["global cosine"] == pytest.approx(
            float(store.global_descriptors[0] @ store.global_descriptors[1])
        )
        space = SearchSpace(store, np.arange(4), np.arange(4))
        for query in range(4):
            for candidate in range(4):
                for method in (Geometric(), Geometric(border=0, max_distance=None, threshold=3.0)):
                    [[score]] = method.scores(space, [Shortlist(query, np.array([candidate]), np.ones(1, np.float32))])
                    assert explain(world, query, candidate, geometric=method).numbers["inliers"] == score
        assert pair.numbers["inliers"] == 24 and pair.panel.points[0].shape == (
            20,
            2,
        )  # as many as the checkpoint was trained with


def test_the_ground_truth_says_what_a_pair_is(world):
    grades = [explain(world, "query", name).numbers.get("ground truth") for name in ("same", "other", "empty", "query")]
    assert grades == ["easy", "different", "junk", None]


@pytest.mark.parametrize("attention", ["cls", "rollout", "links"])
def test_links_that_follow_the_transform_are_solid_and_others_dotted(world, reranker, attention):
    pair = explain(world, "query", "same", reranker, view=AttentionView(attention, links=12))
    rows, columns = pair.panel.links.T
    assert len(rows) == 12 and np.array_equal(
        pair.panel.agrees,
        np.linalg.norm(pair.found.query_points[rows] - pair.found.query_points[columns], axis=1) <= 30,
    )
    assert pair.numbers["links the transform explains"] == pair.panel.agrees.sum()
    figure = draw_pair(pair, ["attention"])
    assert len(lines_of(figure)) == 12
    styles = [patch.get_linestyle() for patch in figure.findobj(ConnectionPatch)]
    assert styles.count("-") == pair.panel.agrees.sum()
    for points, values in zip(pair.panel.points, pair.panel.values):
        assert len(points) == len(values) and (values >= 0).all()


def test_write_pair_writes_a_picture_for_each_panel_and_says_what_it_shows(world, reranker, tmp_path):
    with Store(world / "delg_x.h5") as store:
        written = write_pair(tmp_path / "page", store, "query", "same", world, reranker, ground_truth=world / "gnd.pkl")
    assert [picture["title"].split()[0] for picture in written["images"]] == ["What", "Matches"]
    assert "24 of 24 matches" in written["images"][1]["caption"] and written["numbers"]["inliers"] == 24
    assert files_below(tmp_path / "page") == sorted(picture["file"] for picture in written["images"])
    for picture in written["images"]:
        with Image.open(tmp_path / "page" / picture["file"]) as image:
            assert image.format == "PNG" and image.size[0] > 900 and np.asarray(image.convert("L")).std() > 10
    alone = write_pair(tmp_path / "alone", world / "delg_x.h5", 0, 1, world, box=BOX)
    assert [picture["file"] for picture in alone["images"]] == ["pair_0_1_geometry.png"] and "logit" not in alone[
        "numbers"
    ]


@pytest.mark.parametrize(
    "query, candidate", [("query", "empty"), ("empty", "query"), ("empty", "empty"), ("query", "other")]
)
def test_pairs_without_descriptors_or_matches_are_an_answer(world, reranker, query, candidate, tmp_path):
    written = write_pair(
        tmp_path, world / "delg_x.h5", query, candidate, world, reranker, ground_truth=world / "gnd.pkl"
    )
    assert written["numbers"]["inliers"] == 0 and "links" not in written["numbers"]
    assert files_below(tmp_path) == sorted(picture["file"] for picture in written["images"])
    pair = explain(world, query, candidate, reranker)
    texts = [text.get_text() for text in draw_pair(pair).findobj(lambda artist: hasattr(artist, "get_text"))]
    assert texts.count("no local descriptors") == (query == "empty") + (candidate == "empty")


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_command_writes_one_picture_in_the_format_of_the_suffix(
    world, tmp_path, monkeypatch, capsys, suffix, start
):
    output = tmp_path / f"pair{suffix}"
    arguments = [
        "--store",
        world / "delg_x.h5",
        "--image_dir",
        world,
        "--gnd",
        world / "gnd.pkl",
        "query",
        "1",
        "--output",
        output,
    ]
    arguments += ["--resume", world / "best.pt", "--cpu", "--head", 1]
    monkeypatch.setattr("sys.argv", ["show_pair.py", *map(str, arguments)])
    main()
    printed = capsys.readouterr().out
    assert "query query and candidate same" in printed and "inliers 24, matches 24" in printed
    assert output.read_bytes().startswith(start) and files_below(tmp_path) == [output.name]


def test_wrong_input_is_named_in_one_line_and_nothing_is_written(world, tmp_path, monkeypatch, capsys):
    shutil.copytree(world / "jpg", tmp_path / "broken/jpg")
    (tmp_path / "broken/jpg/same.png").write_bytes((world / "jpg/same.png").read_bytes()[:900])
    Image.fromarray(pixels_of(80, 60, 0)).save(tmp_path / "broken/jpg/other.png")
    (tmp_path / "cut.h5").write_bytes((world / "delg_x.h5").read_bytes()[:2000])
    (tmp_path / "cut.pt").write_bytes((world / "best.pt").read_bytes()[:2000])
    make_store(tmp_path, n=2, desc_name="wide", global_dim=GLOBAL_DIM, local_dim=DIM + 8)
    write_store(
        tmp_path / "globals.h5",
        [
            ImageRecord(
                f"jpg/{name}.png",
                SIZES[name],
                np.eye(GLOBAL_DIM)[0],
                np.empty((0, 0)),
                np.empty((0, 2)),
                np.empty(0),
                np.empty(0),
            )
            for name in ("same", "other")
        ],
    )
    before = files_below(tmp_path)
    gnd, resume = ["--gnd", world / "gnd.pkl"], ["--resume", world / "best.pt"]
    for arguments, words in (
        (["query", "none", *gnd], "delg_x.h5: no descriptors for 'none'"),
        (["query", "9", *gnd], "there is no image 9, the store holds 4"),
        (["query", "same"], "was extracted from 120 x 100 pixels"),
        (["same", "other", "--image_dir", tmp_path / "gone"], "jpg/same.png: no such file; give the folder"),
        (["same", "other", "--image_dir", tmp_path / "broken"], "jpg/same.png: "),
        (["empty", "other", "--image_dir", tmp_path / "broken"], "90 x 200 pixels"),
        (["same", "other", "--store", tmp_path / "gone.h5"], "gone.h5"),
        (["same", "other", "--store", tmp_path / "cut.h5"], "cut.h5"),
        (["same", "other", "--store", tmp_path / "globals.h5"], "holds no local descriptors"),
        (
            ["same", "other", "--store", tmp_path / "globals.h5", "--no-geometric", *resume],
            "holds no local descriptors",
        ),
        (["same", "other", "--resume", tmp_path / "gone.pt"], "gone.pt: no such checkpoint"),
        (["same", "other", "--resume", tmp_path / "cut.pt"], "cut.pt"),
        (["same", "other", "--gnd", tmp_path / "gone.pkl"], "gone.pkl"),
        (["same", "other", "--no-geometric"], "--no-geometric without --resume"),
        (["same", "other", *resume, "--layer", "3"], "layer 3: the network has 3"),
        (["same", "other", *resume, "--head", "-1"], "head -1"),
        (["same", "other", "--links", "-1"], "links -1"),
        (["same", "other", "--max_local", "0"], "max_local 0"),
        (["query", "same", "--box", "50", "50", "50", "80"], "the box (50, 50, 50, 80) is empty"),
        (
            ["query", "same", "--box", "50", "50", "10", "80"],
            "jpg/query.png: Coordinate 'right' is less than 'left'; give a box",
        ),
        (["query", "same", "--box", "0", "0", "50", "80"], "(its box 50 x 80)"),
        (["same", "other", "--output", tmp_path / "pair.gif"], "pair.gif: an image of unknown kind"),
    ):
        common = ["--store", world / "delg_x.h5", "--image_dir", world, "--output", tmp_path / "out.png", "--cpu"]
        assert words in error_of(main, [*common, *arguments], monkeypatch, capsys)
        assert files_below(tmp_path) == before, words


def test_a_ground_truth_that_is_loaded_already_is_taken_as_it_is(world):
    truth = load_ground_truth(world / "gnd.pkl")
    assert explain_pair(world / "delg_x.h5", 0, 1, world, ground_truth=truth).numbers["ground truth"] == "easy"


def test_a_query_may_lie_in_a_store_of_its_own_under_the_name_of_its_whole_image(world, monkeypatch, tmp_path, capsys):
    expected = explain(world, "query", "same")
    store = Store(world / "delg_x.h5")
    query, *others = records_in(store)
    whole = replace(query, size=(200, 150), descriptors=query.descriptors[::-1])
    gallery = write_store(tmp_path / "delg_y.h5", [*others, whole])
    queries = write_store(tmp_path / "delg_y_queries.h5", [query])
    shown = {"image_dir": world, "ground_truth": world / "gnd.pkl", "query_store": Store(queries)}
    pair = explain_pair(gallery, query.name, others[0].name, **shown)
    assert pair.numbers == expected.numbers and np.array_equal(pair.pixels[0], expected.pixels[0])
    written = write_pair(tmp_path / "drawn", gallery, query.name, others[0].name, **shown)
    assert written["numbers"] == expected.numbers and written["images"][0]["file"] == "pair_0_0_geometry.png"
    arguments = ["query", "same", "--store", gallery, "--image_dir", world, "--gnd", world / "gnd.pkl"]
    monkeypatch.setattr("sys.argv", ["show_pair.py", *map(str, arguments), "--output", str(tmp_path / "pair.png")])
    main()  # finds the store of the queries by its name
    assert describe_numbers(expected.numbers) in capsys.readouterr().out
    assert explain_pair(gallery, "same", "other", **shown).numbers == explain(world, "same", "other").numbers


def test_pairs_of_a_report_are_of_the_stores_that_its_evaluation_names(tmp_path, monkeypatch):
    names = ["jpg/a.jpg", "b.jpg"]
    gallery, crops = (make_store(tmp_path, names=names, desc_name=name, seed=len(name)) for name in ("x", "x_queries"))
    protocol = {"store": str(gallery.path), "query_store": str(crops.path)}
    first = SimpleNamespace(find=Path, about={"protocol": protocol, "data_dir": "."}, path="g")
    vars(first).update(gallery=gallery.names, queries=crops.names, gnd=[])
    comparison = SimpleNamespace(queries=crops.names, names=gallery.names, evaluations=[first], methods=[])
    drawn = []

    def write_pair(folder, store, query, candidate, *arguments, query_store, **options):
        drawn.append((query, candidate, store.path, query_store.path))
        return {"images": [], "numbers": {}}

    monkeypatch.setattr("rrt.report.pair.write_pair", write_pair)
    draw_pairs(tmp_path, [(0, 0)], comparison, tmp_path)
    protocol["query_store"] = None
    draw_pairs(tmp_path, [(0, 1)], comparison, tmp_path)
    assert drawn == [("jpg/a.jpg", "jpg/a.jpg", gallery.path, crops.path), (*names, gallery.path, gallery.path)]
