"""What the documentation shows is so: its examples run, its links lead somewhere, every page has its place."""

import doctest
import os
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest
import yaml
from photo_folders import draw
from places import ROOT

import rrt
from rrt.commands.__main__ import COMMANDS, DOORS
from rrt.extras import EXTRAS
from rrt.rerankers import METHODS

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# The examples of docs/backbones.md need more around them: tests/rrt/extraction/test_callable.py.
WITH_EXAMPLES = [
    page for page in PAGES if re.search("^>>> ", page.read_text(), re.MULTILINE) and page.name != "backbones.md"
]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!!python/name:", ""))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with ``photographs``: three pictures of each of two scenes."""
    folder = tmp_path_factory.mktemp("examples")
    for scene, letter in enumerate("ab"):
        for number in (1, 2, 3):
            draw(folder / "photographs" / f"{letter}{number}.png", 10 * scene + number, (200, 150), scene=scene)
    return folder


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_print_what_they_show(page, photographs, levels_once, monkeypatch):
    monkeypatch.chdir(photographs)
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


def test_the_pages_meant_to_have_examples_have_them():
    assert {page.name for page in WITH_EXAMPLES} >= {"README.md", "start.md", "data.md", "vector_search.md"}


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / unquote(path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file.read_text()), f"{page.name}: {target}"


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def named(entries):
    for entry in entries:
        for value in entry.values():
            yield from named(value) if isinstance(value, list) else [value]


def test_every_page_stands_in_the_contents():
    assert sorted(named(SITE["nav"])) == sorted(page.name for page in PAGES if page.name != "README.md")


def test_what_people_type_on_the_first_pages_is_a_command():
    kinds = {name: door for name, door in DOORS.items() if isinstance(door, dict)}
    for page in ("README.md", "docs/start.md", "docs/data.md"):
        for name, kind in re.findall(r"\brrt ([a-z_]+)(?: ([a-z0-9_]+))?", (ROOT / page).read_text()):
            if name in COMMANDS | DOORS:
                assert name not in kinds or not kind or kind in kinds[name], (page, name, kind)
            else:
                assert name in ("is", "and", "package"), (page, name)


def test_every_method_has_its_row():
    table = (ROOT / "docs/rerankers.md").read_text()
    assert [name for name in METHODS if not re.search(rf"^\| .*`{name}`.* \|", table, re.MULTILINE)] == []


# Those of recipes have a test of their own.
SHELL = sorted(
    path
    for folder in ("rrt_scripts", "delg_extract/scripts")
    for path in (ROOT / folder).glob("*.sh")
    if path.read_text().startswith("#!") and path.name != "recipes.sh"
)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_shell_scripts_print_their_help_and_do_nothing(option, tmp_path):
    for script in SHELL:
        said = subprocess.run(
            ["/bin/bash", str(script), option],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            text=True,
            capture_output=True,
        )
        name = re.sub(r"_(delg|delf|oxford|paris|gldv2)?_?(r50|r101).*", ".sh", script.name)
        first = script.with_name(name).read_text().splitlines()[1]
        assert (said.returncode, said.stderr) == (0, ""), script
        assert said.stdout.startswith(first.removeprefix("# ")) and "set -e" not in said.stdout, script


def test_extras_are_those_of_the_package():
    told = re.findall(
        r"`(\w+)`", " ".join(re.findall(r"^\| (`.+?) \|", (ROOT / "docs/start.md").read_text(), re.MULTILINE))
    )
    assert sorted(told) == sorted(EXTRAS)


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == rrt.__version__
    assert f"## Unreleased ({rrt.__version__})" in (changes := (ROOT / "CHANGELOG.md").read_text()) or (
        f"## {rrt.__version__}" in changes
    )


def test_what_comes_from_others_has_its_notice():
    models = [path.name for path in (ROOT / "rrt_gld_ckpts").glob("*.onnx")]
    assert "lite0.onnx" in models
    assert all(f"rrt_gld_ckpts/{name}" in (ROOT / "NOTICE").read_text() for name in models)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / "site/commands/index.html").read_text()
    for name in ("rrt search build", "rrt topk revisited", "rrt evaluate", "python delg_extract/train.py"):
        assert f"<code>{name}</code>" in commands
    assert "rrt.describe" in (tmp_path / "site/api/index.html").read_text()
