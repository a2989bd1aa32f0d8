"""The house is as docs/house.md says: rooms and their order, sizes of files, fronts, what lines may cite."""

import ast
import os
import re
import subprocess
import sys
import tomllib

import pytest
from places import ROOT

PRODUCT = [ROOT / name for name in ("experiment.py", "evaluate_revisited.py")] + [
    path for folder in ("rrt", "delg_extract", "tools") for path in sorted((ROOT / folder).rglob("*.py"))
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# What people wrote; data sets and results lie in folders that are not looked into.
TEXTS = [
    path
    for folder in (
        "*",
        ".ci/*",
        "data/*.md",
        "rrt_gld_ckpts/*.md",
        "docs/*",
        "delg_extract/**/*",
        "rrt/**/*",
        "rrt_scripts/**/*",
        "tests/**/*",
        "tools/**/*",
    )
    for path in sorted(ROOT.glob(folder))
    if path.suffix in {".py", ".md", ".sh", ".toml", ".txt", ".yml", ".yaml", ".js", ".css", ".html"}
]
ROOMS = sorted(
    path.stem
    for path in (ROOT / "rrt").iterdir()
    if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
)
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]


def named(path):
    return str(path.relative_to(ROOT))


def longer_than(limit, paths):
    return {named(path): lines for path in paths if (lines := len(path.read_text().splitlines())) > limit}


def test_no_import_runs_against_the_order_of_the_rooms():
    checked = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", checked], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_has_its_floor_in_the_contract():
    assert sorted(room.removeprefix("rrt.") for layer in LAYERS for room in layer.split(" | ")) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_described(room):
    described = re.findall(r"^\| \d \| (.+?) \|", (ROOT / "docs/house.md").read_text(), re.MULTILINE)
    assert room in {name.rstrip("/").removesuffix(".py") for cell in described for name in re.findall(r"`(.+?)`", cell)}


def test_tests_lie_in_the_rooms_they_test():
    for package in ("rrt", "delg_extract"):
        for path in (ROOT / "tests" / package).rglob("test_*.py"):
            assert (ROOT / package / path.parent.relative_to(ROOT / "tests" / package)).is_dir(), named(path)


def test_no_file_is_too_long_to_be_read_at_a_sitting():
    assert longer_than(350, PRODUCT) == {}
    assert longer_than(400, TESTS) == {}


def test_fronts_only_call_their_command():
    # benchmark.py is itself a command: what it calls, tools/benchmarks/, is no part of the package.
    fronts = [ROOT / "experiment.py", ROOT / "evaluate_revisited.py", *(ROOT / "tools").glob("*.py")]
    assert longer_than(10, [path for path in fronts if path.name != "benchmark.py"]) == {}


def test_every_module_says_what_it_is_for():
    assert [named(path) for path in PRODUCT if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_line_asks_the_tools_to_look_away_from_order_and_form():
    asks = re.compile(r"noqa: *E402|fmt: *(?:skip|off)")
    assert [named(path) for path in PRODUCT + TESTS if asks.search(path.read_text())] == []


def test_no_line_cites_a_document_that_is_not_here():
    absent = re.compile(r"\b(?:RRT|DELG)[_]SPEC\b|\bDESIGN\b|\bHOUSE\b|\bSTYLE\.md")
    assert {named(path): found for path in TEXTS if (found := absent.findall(path.read_text()))} == {}


def test_every_cited_section_is_there():
    # `docs/protocol.md 1.1`, also of several: `docs/delg.md 1.3 to 1.7 and 2.2`.
    cited = re.compile(r"(docs/\w+\.md)`?\s+((?:\d+(?:\.\d+)?)(?:(?:,| to| and)\s+\d+(?:\.\d+)?)*)")
    for path in TEXTS:
        text = path.read_text()
        for document in re.findall(r"docs/\w+\.md", text):
            assert (ROOT / document).is_file(), f"{named(path)} cites {document}"
        for document, sections in cited.findall(re.sub(r"\n[ #*/]*", " ", text)):
            headings = re.findall(r"^#+ ([\d.]+?)\.? ", (ROOT / document).read_text(), re.MULTILINE)
            for section in re.findall(r"\d+(?:\.\d+)?", sections):
                assert section in headings, f"{named(path)} cites {document} {section}"
