"""The extraction of image lists: the same store by any number of workers, after a kill, and with bad images."""

import json

import numpy as np
import pytest
from commands import assert_one_line_error, files_below, kill_tool_when, run_tool
from PIL import Image

from rrt.extraction.describer import open_describer
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.image_jobs import Job, read_image
from rrt.formats.lists import write_image_list
from rrt.store.store import Store

NUM = 9


@pytest.fixture
def photos(tmp_path):
    """Nine small images and their list."""
    generator = np.random.default_rng(3)
    names = [f"p{i}.png" for i in range(NUM)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / name)
    write_image_list(tmp_path / "list.txt", names, np.arange(NUM), np.full((NUM, 2), (80, 60)))
    return tmp_path


def extraction(photos, output, *more):
    return (
        *("tools/extract.py", "--model", "lite0", "--image_dir", photos, "--list", photos / "list.txt"),
        *("--output", photos / output, "--block", 1, "--image_size", 128),
        *("--num_workers", 1, *more),  # more would be started anew
    )


def test_the_store_holds_what_the_describer_gives(photos):
    assert run_tool(*extraction(photos, "delg_lite0.h5", "--local_dtype", "float32")).returncode == 0
    store, describer = Store(photos / "delg_lite0.h5"), open_describer("lite0", image_size=128)
    assert store.names == [f"p{i}.png" for i in range(NUM)] and store.attributes["desc_name"] == "lite0"
    for index in (0, 8):
        expected = describer.describe(read_image(Job("x", photos / f"p{index}.png")).pixels)
        stored = store[index].record()
        np.testing.assert_allclose(stored.global_, expected.global_, atol=1e-5)
        np.testing.assert_allclose(stored.descriptors, expected.descriptors, atol=1e-5)
        np.testing.assert_array_equal(stored.keypoints, expected.keypoints)


def test_a_killed_extraction_goes_on_and_gives_the_same_store_as_several_workers(photos):
    parts = photos / "killed.h5.parts"
    command = extraction(photos, "killed.h5")
    whole = "part-" + "[0-9]" * 5 + ".h5"
    kill_tool_when(lambda: any(parts.glob(whole)), *command)
    assert 1 <= len(list(parts.glob(whole))) < NUM and not (photos / "killed.h5").exists()
    assert run_tool(*command).returncode == 0
    several = run_tool(*extraction(photos, "whole.h5", "--num_workers", 2, "--keep_parts"), forked=True)
    assert several.returncode == 0, several.stderr
    assert (photos / "whole.h5" / "part-00008.h5").exists()
    one, other = (Store(photos / name) for name in ("killed.h5", "whole.h5"))
    assert one.names == other.names and not parts.exists()
    for index in range(NUM):
        # Threads of one worker and of two may add in another order.
        for a, b in zip(vars(one[index].record()).values(), vars(other[index].record()).values()):
            if isinstance(a, np.ndarray):
                np.testing.assert_allclose(a, b, atol=1e-3)
    again = run_tool(*command)
    assert again.returncode == 0 and "complete, nothing to do" in again.stdout


def test_other_settings_do_not_mix_with_what_is_there(photos):
    assert run_tool(*extraction(photos, "a.h5")).returncode == 0
    assert_one_line_error(run_tool(*extraction(photos, "a.h5", "--max_features", 7)), "max_features", "--overwrite")
    assert run_tool(*extraction(photos, "a.h5", "--max_features", 7, "--overwrite")).returncode == 0


def test_images_that_cannot_be_read_are_listed(photos):
    (photos / "p1.png").write_bytes(b"no image")
    (photos / "p4.png").unlink()
    Image.new("RGB", (9, 60)).save(photos / "p5.png")
    refused = run_tool(*extraction(photos, "a.h5"))
    assert_one_line_error(refused, "a.h5.skipped.csv: 3 of 9 images have no descriptors, first 'p1.png'")
    assert "skipped p4.png: no such file" in refused.stdout
    assert "skipped p5.png: a side is shorter than 10 pixels" in refused.stdout
    assert (photos / "a.h5.skipped.csv").read_text().startswith("name,reason\np1.png,")
    allowed = run_tool(*extraction(photos, "b.h5", "--allow_missing", "--quiet"))
    assert allowed.returncode == 0 and len(Store(photos / "b.h5").names) == 6


def test_queries_are_cropped_to_their_box(photos):
    box = [10.0, 5.0, 60.0, 45.0]
    save_ground_truth(photos / "gnd.pkl", ["p1.png"], ["p0.png"], [{"bbx": box, "easy": [0], "hard": [], "junk": []}])
    write_image_list(photos / "query.txt", ["p0.png"], [0], [(50, 40)])
    command = ("tools/extract.py", "--image_dir", photos, "--query_list", photos / "query.txt", "--output")
    assert_one_line_error(run_tool(*command, photos / "q.h5"), "queries are cropped to their box; give --ground_truth")
    assert run_tool(*command, photos / "q.h5", "--ground_truth", photos / "gnd.pkl").returncode == 0
    assert Store(photos / "q.h5").image_size.tolist() == [[50, 40]]


@pytest.mark.parametrize(
    "options, words",
    [
        (("--model", "onnx:none.onnx"), "none.onnx: no such model; export the model again"),
        (("--model", "delg"), "expected lite0, onnx:FILE or transformers:"),
        (("--block", "0"), "setting block=0"),
        (("--scales", "0"), "setting scales.0=0.0"),
        (("--table", "t.json"), "--table stands instead of lists"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(photos, options, words):
    before = files_below(photos)
    assert_one_line_error(run_tool(*extraction(photos, "a.h5", *options)), words)
    assert files_below(photos) == before


def test_a_table_names_images_from_anywhere(photos):
    (photos / "table.json").write_text(json.dumps({"first": str(photos / "p0.png")}))
    done = run_tool("tools/extract.py", "--table", photos / "table.json", "--output", photos / "t.h5")
    assert done.returncode == 0, done.stderr
    assert Store(photos / "t.h5").names == ["first"]
