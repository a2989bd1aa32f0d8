"""From photographs to results with the shipped model: a build that is killed, its continuation, queries, the page."""

import json
import shutil
import subprocess
import sys
import time

import pytest
from commands import kill_tool_when, run_tool
from photo_folders import draw
from photo_server import request, serving
from small_delg import write_small_delg

from rrt.photo_index.extraction import open_describer
from rrt.photo_index.manifest import read_manifest
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.segments import describe
from rrt.store.schema import parts_path

NUM = 40  # two parts


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
        *("--scales", "1", "--num_workers", "1", "--quiet"),
    )
    parts = parts_path(folder / "index" / "segments" / "segment-00001.h5")
    kill_tool_when(lambda: (parts / "part-00000.h5").exists(), *command)
    ends = time.time() + 60
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
    assert index.store.config["exif_rotation"] is True and index.store.config["model"] == "lite0.onnx"


def test_the_page_finds_a_cropped_copy(folder, tmp_path):
    # Enlarged, so that its bytes are none of the index's.
    from PIL import Image

    with Image.open(folder / "photos" / "p07.png") as image:
        image.resize((640, 480)).save(tmp_path / "large.png")
    describer = open_describer(folder / "index", read_manifest(folder / "index").extraction)
    with serving(folder / "index", describer) as server:
        content = (tmp_path / "large.png").read_bytes()
        status, _, body = request(server, "POST", "/search", content)
        assert status == 200 and json.loads(body)["results"][0]["name"] == "p07.png"
        cropped = json.loads(request(server, "POST", "/search?box=[40,20,620,470]", content)[2])
        assert cropped["results"][0]["name"] == "p07.png" and cropped["same_file"] is None


def test_a_query_from_the_shell_waits_for_no_large_library(folder, tmp_path):
    code = (
        "import sys; from rrt.commands.search import main; sys.argv = ['search.py', 'query', *sys.argv[1:]]; main(); "
        "print([name for name in ('tensorflow', 'torch', 'scipy', 'pandas', 'faiss') if name in sys.modules])"
    )
    new = draw(tmp_path / "new.png", 7, (500, 375))
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "index"), str(new)], capture_output=True, text=True, check=True
    )
    *lines, loaded = done.stdout.splitlines()
    first = next(line.split() for line in lines if line.split()[0] == "1")
    assert first[-1] == "p07.png" and loaded == "[]"


@pytest.mark.slow
def test_a_delg_model_describes_an_index_and_its_queries_in_processes_of_its_own(folder, tmp_path):
    weights, photos = write_small_delg(tmp_path / "small.h5"), tmp_path / "photos"
    photos.mkdir()
    for name in ("p03.png", "p07.png", "p20.png", "turned.jpg"):
        shutil.copy(folder / "photos" / name, photos)
    built = run_tool(
        *("tools/search.py", "build", photos, "--index", tmp_path / "index", "--model", weights),
        *("--max_image_size", "160", "--max_features", "30", "--num_workers", "1"),
    )
    assert built.returncode == 0, built.stderr
    draw(tmp_path / "new.png", 7, (500, 375))
    found = run_tool("tools/search.py", "query", tmp_path / "index", tmp_path / "new.png", "--json", "-")
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert answer["results"][0]["name"] == "p07.png" and answer["method"] == "none" and "checkpoint" in answer["note"]
    other = run_tool("tools/search.py", "build", photos, "--index", tmp_path / "index", "--model", "lite0")
    assert other.returncode == 1 and "described by the model of SHA-256" in other.stderr
