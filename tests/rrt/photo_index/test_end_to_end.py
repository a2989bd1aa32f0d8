"""From photographs to results with the shipped model: a build that is killed, its continuation, queries, the page's own
process."""

import json
import time

import pytest
from commands import ROOT, kill_tool_when, run_tool
from photo_folders import draw
from photo_server import request, serving

from rrt.photo_index.extraction import Describer, command_line
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.segments import describe
from rrt.store.schema import parts_path

NUM = 36  # two parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs, and their index by a build that was killed when its first part was there and then run again."""
    folder = tmp_path_factory.mktemp("whole")
    for i in range(NUM):
        draw(folder / "photos" / f"p{i:02}.png", i, (320, 240))
    draw(folder / "photos" / "turned.jpg", 99, (320, 240), orientation=6)
    command = (
        "tools/search.py",
        "build",
        folder / "photos",
        "--index",
        folder / "index",
        "--num_workers",
        "1",
        "--quiet",
    )
    parts = parts_path(folder / "index" / "segments" / "segment-00001.h5")
    kill_tool_when(lambda: (parts / "part-00000.h5").exists(), *command)
    ends = time.time() + 60
    # The process that describes images ends by itself when the one that started it has gone.
    while (
        (second := run_tool(*command)).returncode
        and "another process is changing" in second.stderr
        and time.time() < ends
    ):
        pass
    assert second.returncode == 0, second.stderr
    folder.joinpath("printed").write_text(second.stdout)
    return folder


def test_a_killed_build_is_gone_on_with(folder):
    printed = folder.joinpath("printed").read_text()
    assert f"{NUM + 1} photographs" in printed and f"{NUM + 1} images described" in printed
    facts = describe(folder / "index")
    assert (facts["photographs"], facts["skipped"], facts["segments"], facts["still to be described"]) == (
        NUM + 1,
        0,
        1,
        0,
    )
    index = PhotoIndex(folder / "index")
    assert index.entries[index.numbers["turned.jpg"]].size == (240, 320)
    assert index.store.config["exif_rotation"] is True and index.store.config["model"]["block3_strides"] is False


def test_the_page_finds_a_cropped_copy_with_its_own_process(folder, tmp_path):
    # Enlarged, so that its bytes are none of the index's.
    from PIL import Image

    with Image.open(folder / "photos" / "p07.png") as image:
        image.resize((640, 480)).save(tmp_path / "large.png")
    describer = Describer([])
    try:
        with serving(folder / "index", describer) as server:
            content = (tmp_path / "large.png").read_bytes()
            status, _, body = request(server, "POST", "/search", content)
            assert status == 200 and json.loads(body)["results"][0]["name"] == "p07.png"
            warm = json.loads(request(server, "POST", "/search?box=[40,20,620,470]", content)[2])
            assert warm["results"][0]["name"] == "p07.png" and warm["same_file"] is None
            (child,) = describer._children
            child.kill()
            assert request(server, "POST", "/search", content)[0] == 200
    finally:
        describer.close()


def test_the_shipped_model_has_the_settings_of_the_quickstart():
    words = command_line([])
    script = (ROOT / "rrt_scripts" / "quickstart.sh").read_text()
    assert '--max_image_size "${SIZE:-320}"' in script and "--max_features 200 --no-block3_strides" in script
    assert words[2:] == ["--max_image_size", "320", "--max_features", "200", "--no-block3_strides"] and words[
        1
    ].endswith("delg_small.h5")
