"""Extraction of images and queries as they come from elsewhere."""

import io

import cv2
import numpy as np
import pytest
from commands import error_of
from PIL import Image

from delg_extract.extract import main
from delg_extract.network.model import Delg
from delg_extract.network.weights import save_weights
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import write_image_list
from rrt.store.skipped import read_skipped
from rrt.store.store import Store

pytestmark = pytest.mark.usefixtures("opened_once")

NUMBERS = {"easy": [0], "hard": [], "junk": []}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights") / "small.h5", Delg("small", seed=3), score_threshold=0.0)


def draw(path, seed=0):
    """A smooth image of 160 x 120 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(np.kron(pixels, np.ones((10, 10, 1), np.uint8))).save(path)


def words(folder, weights, names, boxes=None, *extra):
    """The command's words; boxes {query: box} of the ground truth."""
    write_image_list(folder / "gallery.txt", names, [0] * len(names), [(160, 120)] * len(names))
    given = ["--model", weights, "--image_dir", folder, "--list", folder / "gallery.txt", "--output", folder / "o.h5"]
    if boxes:
        write_image_list(folder / "query.txt", list(boxes), [0] * len(boxes), [(160, 120)] * len(boxes))
        gnd = [{"bbx": box, **NUMBERS} for box in boxes.values()]
        save_ground_truth(folder / "gnd.json", names, list(boxes), gnd)
        given += ["--query_list", folder / "query.txt", "--ground_truth", folder / "gnd.json"]
    return [*map(str, given), "--num_workers", "1", *extra]


def damaged_avif():
    """Bytes that Pillow takes for an AVIF and cannot decode."""
    out = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(out, "AVIF")
    whole = out.getvalue()
    cut = [whole[:end] for end in range(len(whole) - 1, 20, -7)]
    for data in cut + [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in range(4, 400)]:
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except RuntimeError:
            return data
        except Exception:
            continue
    raise AssertionError("no damaged AVIF found")


def test_each_image_that_cannot_be_described_is_skipped_with_its_reason(tmp_path, weights, monkeypatch):
    draw(tmp_path / "good.jpg")
    (tmp_path / "avif.avif").write_bytes(damaged_avif())
    Image.new("RGB", (1, 1000)).save(tmp_path / "divider.png")
    Image.new("RGB", (30_000, 2)).save(tmp_path / "line.png")
    (tmp_path / "eps.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "wall.png")
    Image.fromarray(np.full((40, 50), np.nan, np.float32)).save(tmp_path / "nan.tif")
    names = ["good.jpg", "avif.avif", "divider.png", "line.png", "eps.jpg", "wall.png", "nan.tif"]
    given = words(tmp_path, weights, names, None, "--allow_missing", "--max_image_size", "320")
    monkeypatch.setattr("sys.argv", ["extract", *given])
    assert main() == 0
    with Store(tmp_path / "o.h5") as store:
        assert store.names == ["good.jpg"]
    reasons = {skipped.name: skipped.reason for skipped in read_skipped(tmp_path / "o.h5")}
    assert list(reasons) == names[1:]
    told = ("decode", "shorter than 10", "shorter than 10", "not an image", "80 megapixels", "not finite")
    assert all(part in reason.lower() for part, reason in zip(told, reasons.values(), strict=True)), reasons


def test_a_grey_image_of_16_bits_is_described_as_in_eight(tmp_path, weights, monkeypatch):
    draw(tmp_path / "g8.png")
    grey = cv2.imread(str(tmp_path / "g8.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "g8.png"), grey)
    cv2.imwrite(str(tmp_path / "g16.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "f32.tif"), (grey / 255).astype(np.float32))
    monkeypatch.setattr("sys.argv", ["extract", *words(tmp_path, weights, ["g8.png", "g16.png", "f32.tif"])])
    assert main() == 0
    with Store(tmp_path / "o.h5") as store:
        eight, sixteen, floats = store.global_descriptors[:]
        assert np.array_equal(eight, sixteen) and eight @ floats > 0.999


@pytest.mark.parametrize("box", [[200, 200, 300, 300], [100, 80, 300, 300]])
def test_a_query_box_beyond_its_image_names_query_box_and_size(tmp_path, weights, monkeypatch, capsys, box):
    draw(tmp_path / "q.jpg", 1)
    draw(tmp_path / "g.jpg", 2)
    message = error_of(main, words(tmp_path, weights, ["g.jpg"], {"q.jpg": box}), monkeypatch, capsys)
    told = ",".join(map(str, box))
    assert "q.jpg" in message and f"box {told} " in message and "160 x 120" in message


def test_queries_of_one_file_name_are_cropped_each_to_its_own_box(tmp_path, weights, monkeypatch):
    for name in ("a/001.jpg", "b/001.jpg", "church.1.jpg", "g.jpg"):
        draw(tmp_path / name, len(name))
    boxes = {"a/001.jpg": [0, 0, 50, 40], "b/001.jpg": [60, 50, 140, 110], "church.1.jpg": [10, 10, 100, 100]}
    monkeypatch.setattr("sys.argv", ["extract", *words(tmp_path, weights, ["g.jpg"], boxes)])
    assert main() == 0
    with Store(tmp_path / "o.h5") as store:
        sizes = {name: store.image_size[row].tolist() for row, name in enumerate(store.names)}
    assert sizes == {"g.jpg": [160, 120], "a/001.jpg": [50, 40], "b/001.jpg": [80, 60], "church.1.jpg": [90, 90]}
