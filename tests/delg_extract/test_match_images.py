"""The command that matches two images: a known warp, all sources of descriptors, the drawing, and wrong input."""

import sys
import types
from dataclasses import replace

import cv2
import numpy as np
import pytest
from commands import assert_one_line_error, files_below, run_tool, usage_error_of
from delf_files import write_features
from PIL import Image
from warped_images import WARP, features, moved, record, textured

from delg_extract.extraction import one_image
from delg_extract.extraction.delg import DelgNetwork
from delg_extract.extraction.extractor import Extractor
from delg_extract.extraction.settings import ExtractionSettings
from delg_extract.match_images import main, parser
from delg_extract.network.model import Delg
from delg_extract.network.weights import load_weights, save_weights
from rrt.commands import verify_pairs
from rrt.errors import InputError
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list
from rrt.matching.images import ImageFeatures, match_images
from rrt.matching.matches import residuals
from rrt.store.writer import write_store
from rrt.viz.style import DPI
from rrt.viz.two_images import ABOVE, BELOW, BETWEEN, HIGHEST, LEFT, RIGHT, WIDEST

pytestmark = pytest.mark.usefixtures("opened_once")

HEAD = 0.4  # inches of a title of one line

CORNERS = np.array([[0, 0], [320, 0], [0, 240], [320, 240]])
FEW = ("--max_features", "300", "--scales", "0.7", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One image, its warp, an image of something else, and weights from noise."""
    folder = tmp_path_factory.mktemp("pictures")
    picture = textured(240, 320)
    Image.fromarray(picture).save(folder / "one.png")
    Image.fromarray(cv2.warpAffine(picture, WARP, (320, 240), borderMode=cv2.BORDER_REFLECT)).save(
        folder / "warped.png"
    )
    Image.fromarray(textured(100, 400, seed=9)).save(folder / "other.png")
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(folder / "plain.png")
    save_weights(folder / "small.h5", Delg("small", seed=3, block3_strides=False))
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """main() with arguments, the images named from the folder -> what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["match_images.py", "--image_dir", str(folder), *map(str, arguments)])
        assert main() == 0
        return capsys.readouterr().out

    return run


def count(printed, what):
    """The number before a word of the output."""
    words = printed.replace(",", "").split()
    return int(words[words.index(what) - 1])


# ---- matching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["affine", "homography"])
def test_a_known_warp_is_recovered_within_a_few_pixels(folder, geometry):
    extractor = Extractor(DelgNetwork(load_weights(folder / "small.h5")), ExtractionSettings(use_global=False))
    pictures = []
    for name in ("one.png", "warped.png"):
        pixels = one_image.read_pixels(folder / name)
        found = extractor(pixels)
        pictures.append(ImageFeatures(name, pixels.shape[1::-1], found.locations[:, ::-1], found.descriptors))
    matches = match_images(*pictures, geometry=geometry)
    assert len(matches.inliers) > 100
    truth = CORNERS @ WARP[:, :2].T + WARP[:, 2]
    assert residuals(matches.verification.transform, CORNERS, truth).max() < 8


def test_default_residual_is_20_pixels_or_two_in_a_hundred_of_a_large_second_image():
    small, large = (ImageFeatures("", (side // 2, side), np.empty((0, 2)), np.empty((0, 0))) for side in (400, 3000))
    assert match_images(large, small).residual == 20 and match_images(small, large).residual == 60


def test_one_way_matching_asks_for_each_feature_of_the_second_image():
    rng = np.random.default_rng(0)
    hub = rng.standard_normal(8).astype(np.float32)
    others = [-hub * factor for factor in range(1, 6)]
    first = ImageFeatures("", (99, 99), rng.uniform(0, 99, (6, 2)), np.stack([hub, *others]))
    second = ImageFeatures("", (99, 99), rng.uniform(0, 99, (4, 2)), np.tile(hub, (4, 1)))
    assert match_images(first, second, "one_way", ratio=None).pairs.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


# ---- sources of descriptors ------------------------------------------------------------------------------------------


def test_feature_files_are_matched_and_the_inliers_counted(run, folder):
    one = features(60)
    write_features(folder / "one.delf", one)
    write_features(folder / "two.delg_local", moved(one))
    printed = run(
        "one.png",
        "warped.png",
        "--features1",
        folder / "one.delf",
        "--features2",
        folder / "two.delg_local",
        "--output",
        folder / "files.png",
        "--geometry",
        "affine",
    )
    assert count(printed, "matches") == 60 and count(printed, "inliers") >= 55
    fewer = run(
        "one.png",
        "warped.png",
        "--features1",
        folder / "one.delf",
        "--features2",
        folder / "two.delg_local",
        "--output",
        folder / "files.png",
        "--max_features",
        40,
        "--score_threshold",
        5,
    )
    assert count(fewer, "matches") == 30  # half of the attention values 9 to 1 reach 5


def test_a_store_is_matched_by_the_images_names(run, folder):
    one = features(60)
    write_store(
        folder / "delg_x.h5", [record("one.png", (320, 240), one), record("warped.png", (320, 240), moved(one))]
    )
    printed = run("one.png", "warped.png", "--store", folder / "delg_x.h5", "--output", folder / "store.png")
    assert count(printed, "inliers") >= 55
    with pytest.raises(InputError, match="other.png"):
        run("one.png", "other.png", "--store", folder / "delg_x.h5", "--output", folder / "no.png")
    (folder / "crop").mkdir()
    Image.fromarray(textured(50, 60)).save(folder / "crop" / "one.png")
    with pytest.raises(InputError, match="320 x 240 pixels"):
        run(
            "one.png",
            "one.png",
            "--image_dir",
            folder / "crop",
            "--store",
            folder / "delg_x.h5",
            "--output",
            folder / "no.png",
        )


def test_pairs_of_a_store_are_counted_as_this_command_counts_them(run, folder, monkeypatch, capsys):
    """tools/verify_pairs.py on descriptors of which some match by chance."""
    names = ["one.png", "warped.png", "other.png"]
    sizes = [one_image.read_pixels(folder / name).shape[1::-1] for name in names]
    write_store(
        folder / "pairs.h5",
        [
            record(name, size, features(200, np.array(size) - 5, seed, dim=4))
            for seed, (name, size) in enumerate(zip(names, sizes))
        ],
    )
    write_image_list(folder / "query.txt", names[:1], [0], sizes[:1])
    write_image_list(folder / "gallery.txt", names[1:], [0, 1], sizes[1:])
    entry = {"bbx": [0, 0, 320, 240], "easy": [0], "hard": [], "junk": []}
    save_ground_truth(folder / "gnd.pkl", ["warped", "other"], ["one"], [entry])
    files = {
        "store": "pairs.h5",
        "ground_truth": "gnd.pkl",
        "query_list": "query.txt",
        "gallery_list": "gallery.txt",
        "output": "pairs.csv",
    }
    options = [f"--{option}={folder / file}" for option, file in files.items()]
    monkeypatch.setattr(sys, "argv", ["", *options, "--pairs=2", "--num_workers=1"])
    assert verify_pairs.main() == 0
    capsys.readouterr()
    for name, line in zip(names[1:], (folder / "pairs.csv").read_text().splitlines()[1:]):
        printed = run("one.png", name, "--store", folder / "pairs.h5", "--output", folder / "pairs.png")
        assert (
            line
            == f"one.png,{name},{int(name == 'warped.png')},{count(printed, 'matches')},{count(printed, 'inliers')}"
        )
        assert count(printed, "matches") > 10


def test_a_folder_is_opened_as_a_savedmodel(run, folder, monkeypatch):
    with pytest.raises(InputError, match="saved_model.pb"):
        run("one.png", "warped.png", "--model", folder, "--output", folder / "no.png")
    module = types.ModuleType("delg_extract.extraction.saved_models")
    module.open_saved_model = lambda path: DelgNetwork(load_weights(folder / "small.h5"))
    monkeypatch.setitem(sys.modules, "delg_extract.extraction.saved_models", module)
    (folder / "exported").mkdir()
    (folder / "exported/saved_model.pb").touch()
    own = run("one.png", "warped.png", "--model", folder / "small.h5", *FEW, "--output", folder / "a.png")
    assert run("one.png", "warped.png", "--model", folder / "exported", *FEW, "--output", folder / "a.png") == own


def test_features_near_the_border_are_left_out(run, folder):
    one = features(60)
    one.keypoints[:7] = [(11, 100), (309, 100), (100, 11), (100, 229), (0, 0), (320, 240), (13, 13)]
    write_features(folder / "one.delf", one)
    both = (
        "one.png",
        "one.png",
        "--features1",
        folder / "one.delf",
        "--features2",
        folder / "one.delf",
        "--output",
        folder / "border.png",
    )
    assert "one.png: 54 features" in run(*both)  # a twentieth of 240 pixels is 12
    assert "one.png: 60 features" in run(*both, "--border", 0)


@pytest.mark.parametrize("mode, options", [("L", {}), ("RGBA", {}), ("RGB", {"exif": 6})])
def test_grey_transparent_and_turned_images_are_read_as_the_extraction_reads_them(run, folder, mode, options):
    image = Image.open(folder / "one.png").convert(mode)
    name = f"{mode}{len(options)}.png"
    if options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]  # orientation: turned by 90 degrees
        image.save(folder / name, exif=exif)
    else:
        image.save(folder / name)
    printed = run(
        "one.png", name, "--model", folder / "small.h5", *FEW, "--output", folder / "kinds.png", "--geometry", "affine"
    )
    if mode != "L":  # the same pixels: every feature finds itself
        assert count(printed, "inliers") == count(printed, "matches") > 100
    assert one_image.read_pixels(folder / name).shape == (240, 320, 3)


# ---- the drawing -----------------------------------------------------------------------------------------------------


def drawn(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_inlier_is_a_line_between_the_images_and_without_any_they_stand_alone(run, folder):
    one = features(60)
    write_features(folder / "one.delf", one)
    write_features(folder / "two.delf", moved(one))
    write_features(folder / "none.delf", features(0))
    arguments = ("one.png", "warped.png", "--features1", folder / "one.delf", "--output")
    run(*arguments, folder / "with.png", "--features2", folder / "two.delf")
    printed = run(*arguments, folder / "without.png", "--features2", folder / "none.delf")
    assert "warped.png: 0 features" in printed and "0 inliers of 0 matches" in printed
    lines, bare = drawn(folder / "with.png"), drawn(folder / "without.png")
    assert lines.shape == bare.shape
    high = (WIDEST - LEFT - BETWEEN - RIGHT) / 2 * 3 / 4
    assert bare.shape[1] == WIDEST * DPI and bare.shape[0] == pytest.approx(DPI * (HEAD + ABOVE + high + BELOW), abs=2)
    middle = round(DPI * (LEFT + high * 4 / 3 + BETWEEN / 2))
    gap, body = slice(middle - 4, middle + 4), slice(round(DPI * (HEAD + ABOVE)), round(DPI * (HEAD + ABOVE + high)))
    assert (bare[body, gap] == 255).all()
    assert (lines[body, gap] < 255).any(axis=(1, 2)).sum() > 60
    changed = np.abs(lines - bare).max(axis=2)[body] > 30
    assert changed[:, :middle].mean() > 0.02 and changed[:, middle:].mean() > 0.02


def test_lines_end_at_the_keypoints_of_images_of_very_different_sizes(run, folder):
    Image.fromarray(np.full((2000, 1500, 3), 255, np.uint8)).save(folder / "large.png")
    Image.fromarray(np.full((50, 40, 3), 255, np.uint8)).save(folder / "tiny.png")
    large = features(9, (1500, 2000))
    spots = np.array([[x, y] for x in (300, 750, 1200) for y in (400, 1000, 1600)], np.float32)
    write_features(folder / "large.delf", replace(large, keypoints=spots))
    write_features(folder / "tiny.delf", replace(large, keypoints=spots / 40 + (1, 0)))
    printed = run(
        "large.png",
        "tiny.png",
        "--features1",
        folder / "large.delf",
        "--features2",
        folder / "tiny.delf",
        "--residual",
        2,
        "--output",
        folder / "sizes.png",
    )
    assert count(printed, "inliers") == 9
    picture = drawn(folder / "sizes.png")
    wide = np.array([1500 / 2000, 40 / 50]) * HIGHEST
    for x, y in spots:
        for across in (x / 1500 * wide[0], wide[0] + BETWEEN + (x / 40 + 1) / 40 * wide[1]):
            row, column = round(DPI * (HEAD + ABOVE + y / 2000 * HIGHEST)), round(DPI * (LEFT + across))
            assert picture[row - 3 : row + 4, column - 3 : column + 4].min() < 100, (x, y, across)


@pytest.mark.parametrize("suffix, start", [(".jpg", b"\xff\xd8"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(run, folder, suffix, start):
    write_features(folder / "any.delf", features(20))
    both = ("--features1", folder / "any.delf", "--features2", folder / "any.delf")
    output = folder / f"made/$here_{suffix}"
    run("one.png", "warped.png", *both, "--output", output)
    assert output.read_bytes().startswith(start)


def test_images_that_do_not_match_are_an_answer(run, folder):
    """A featureless image, and one of something else."""
    for name in ("plain.png", "other.png"):
        printed = run("one.png", name, "--model", folder / "small.h5", *FEW, "--output", folder / f"no_{name}")
        assert count(printed, "inliers") < 20 and (folder / f"no_{name}").is_file()


# ---- wrong input -----------------------------------------------------------------------------------------------------


def test_wrong_input_is_named_in_one_line_and_nothing_is_written(run, folder, tmp_path, monkeypatch, capsys):
    cut = tmp_path / "cut.png"
    cut.write_bytes((folder / "one.png").read_bytes()[:3000])
    (tmp_path / "empty.png").touch()
    Image.fromarray(textured(5, 200)).save(tmp_path / "narrow.png")
    write_features(tmp_path / "far.delf", features(20, (5000, 5000)))
    write_features(tmp_path / "long.delf", features(20, (300, 200), dim=40))
    write_features(tmp_path / "short.delf", features(20, (300, 200)))
    broken = features(20, (300, 200))
    broken.descriptors[3, 2] = np.nan
    write_features(tmp_path / "nan.delf", broken)
    (tmp_path / "cut.delf").write_bytes((tmp_path / "long.delf").read_bytes()[:-20])
    (tmp_path / "cut.h5").write_bytes((folder / "small.h5").read_bytes()[:5000])
    before = files_below(tmp_path)
    model = ("--model", folder / "small.h5", *FEW)

    def files(*names):
        return [part for number, name in enumerate(names, 1) for part in (f"--features{number}", tmp_path / name)]

    for arguments, words in (
        (("missing.png", "one.png", *model), "missing.png: no such file"),
        (("one.png", cut, *model), "cut.png"),
        (("one.png", tmp_path / "empty.png", *model), "empty.png: not an image"),
        (("one.png", tmp_path / "narrow.png", *model), "narrow.png: a side is shorter than 10 pixels"),
        (("one.png", "plain.png", *model, "--scales", 0.05), "plain.png: a side is shorter than 10 pixels"),
        (("one.png", "warped.png", "--model", tmp_path / "none.h5"), "none.h5: no such weight file"),
        (("one.png", "warped.png", "--model", tmp_path / "cut.h5"), "cut.h5: not a readable HDF5 file"),
        (("one.png", "warped.png", "--model", cut), "cut.png: not a readable HDF5 file"),
        (("one.png", "warped.png", *files("short.delf")), "--features1 and --features2"),
        (("one.png", "warped.png", *files("short.delf", "gone.delf")), "gone.delf"),
        (("one.png", "warped.png", *files("short.delf", "cut.delf")), "cut.delf"),
        (
            ("one.png", "warped.png", *files("short.delf", "nan.delf")),
            "one.png, warped.png: descriptors that are not finite",
        ),
        (("one.png", "warped.png", *files("short.delf", "long.delf")), "descriptors of 40 and of 16 dimensions"),
        (("one.png", "warped.png", *files("short.delf", "far.delf")), "far.delf: a keypoint at"),
        (("one.png", "warped.png", *files("short.delf", "short.delf"), "--model", "x.h5"), "one place only"),
        (("one.png", "warped.png", "--store", tmp_path / "none.h5"), "none.h5"),
        (("one.png", "warped.png", "--output", tmp_path / "match.gif"), "match.gif: an image of unknown kind"),
        (("one.png", "warped.png", "--output", tmp_path / "match"), "match: an image of unknown kind"),
        (("one.png", "warped.png", *model, "--max_features", 0), "--max_features 0"),
        (("one.png", "warped.png", *model, "--scales", 1, -2), "--scales 1.0 -2.0"),
        (("one.png", "warped.png", *model, "--max_image_size", 0), "--max_image_size 0"),
        (("one.png", "warped.png", *model, "--ratio", 0), "--ratio 0.0"),
        (("one.png", "warped.png", *model, "--residual", 0), "--residual 0.0"),
        (("one.png", "warped.png", *model, "--border", 0.5), "--border 0.5"),
    ):
        with pytest.raises(InputError) as raised:
            run("--output", tmp_path / "out.png", *arguments)
        assert words in str(raised.value)
        assert files_below(tmp_path) == before, words
    for option in ("--scales", "--residual"):
        arguments = [folder / "one.png", folder / "warped.png", *model, "--output", tmp_path / "out.png", option, "nan"]
        assert f"{option}: 'nan' is no finite number" in usage_error_of(main, arguments, monkeypatch, capsys)
        assert files_below(tmp_path) == before


def test_the_command_ends_with_one_line_and_status_1(folder):
    for arguments, parts in (
        (("--model", folder / "small.h5", "--output", folder / "match.gif"), ("match.gif", ".svg")),
        ((), ("no descriptors", "--model")),
    ):
        done = run_tool("delg_extract/match_images.py", folder / "one.png", folder / "warped.png", *arguments)
        assert_one_line_error(done, *parts)


def test_help_names_every_default():
    text = " ".join(parser().format_help().split())
    assert "2% of its longest side" in text and "(default 1000)" in text
