"""Every image the project makes has labelled axes with units, legends that say something, and is readable in grey."""

import re

import numpy as np
import pandas as pd
import pytest
from commands import ROOT
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from rrt.errors import InputError
from rrt.viz.style import FIGURE_SUFFIXES, check_figure_path, save_figure

SOURCES = sorted(path for folder in ("rrt", "tools", "delg_extract") for path in (ROOT / folder).rglob("*.py"))
PIXELS = [np.random.default_rng(seed).integers(0, 256, (60 + 20 * seed, 90, 3), dtype=np.uint8) for seed in range(2)]
POINTS = np.random.default_rng(2).uniform(5, 50, (8, 2))


def curves_of_rrt(path, monkeypatch):
    from rrt.training.log import draw_curves

    figures = {f"{part}_{protocol}_map": 40.0 for part in ("val", "test") for protocol in "MH"}
    draw_curves(path, [[10, 0.7, 0.5, 1e-4], [20, 0.6, 0.6, 1e-4]], [{"step": step} | figures for step in (10, 20)])


def curves_of_rrt_without_a_watched_set(path, monkeypatch):
    from rrt.training.log import draw_curves

    draw_curves(path, [], [{"step": 10, "loss": 0.7, "accuracy": 0.5, "lr": 1e-4}])


def curves_of_delg(path, monkeypatch):
    from delg_extract.training.log import HEADS, LOSSES, draw_curves

    columns = [*LOSSES, *(f"{head}_accuracy" for head in HEADS), *(f"validation_{head}" for head in HEADS)]
    table = path.with_suffix(".csv")
    pd.DataFrame({"step": range(1, 9), **{name: np.linspace(0.9, 0.1, 8) for name in columns}}).to_csv(
        table, index=False
    )
    draw_curves(table, path)


def comparison(path, monkeypatch):
    from rrt.evaluation.comparison import draw

    rows = [
        {
            "method": f"method {i}",
            "map": {"medium": 50.0 + i},
            "interval": {"medium": [45, 70]},
            "ms_per_query": 10.0 ** (i - 6),
        }
        for i in range(12)
    ]
    draw(rows, path, "ms_per_query", "milliseconds a query")


def tokens(path, monkeypatch):
    from rrt.evaluation.token_costs import draw_tokens

    families = {f"family {i}": {count: f"{i}:{count}" for count in (10, 30, 100)} for i in range(6)}
    rows = [
        {"method": f"{i}:{count}", "map": {"medium": 50.0 + i + count / 20}, "ms_per_query": count * (i + 1.0)}
        for i in range(6)
        for count in (10, 30, 100)
    ]
    draw_tokens({"families": families, "rows": [{"method": "global", "map": {"medium": 48.0}}, *rows]}, path)


def reliability(path, monkeypatch):
    from rrt.evaluation.calibrating import draw_reliability

    probabilities = np.linspace(0.01, 0.99, 200)
    right = np.random.default_rng(3).random(200) < probabilities
    draw_reliability(path, {"one": probabilities, "two": probabilities**2, "three": np.sqrt(probabilities)}, right)


def recipes(path, monkeypatch):
    from rrt.training import recipes as compared

    seen = np.arange(1, 9) * 1000
    monkeypatch.setattr(compared, "curve", lambda folder: (seen, np.linspace(0.5, 0.7, 8), 2000))
    compared.draw({f"recipe {i}": [path, path] for i in range(9)}, path)


def attention_of_delg(path, monkeypatch):
    pytest.importorskip("tensorflow")
    from delg_extract.extraction.extractor import Descriptors
    from delg_extract.show_attention import attention_maps, draw_attention

    places = np.stack(np.meshgrid(np.arange(3) * 32.0, np.arange(2) * 32.0), -1).reshape(-1, 2)
    attention = np.linspace(9, 1, 12, dtype=np.float32)
    found = Descriptors(np.empty(0), np.tile(places, (2, 1)), np.empty((12, 0)), np.repeat([1.0, 2.0], 6), attention)
    draw_attention(path, PIXELS[0], attention_maps(found), found, "two scales")


def matches_of_images(path, monkeypatch):
    from rrt.matching.images import ImageFeatures, match_images
    from rrt.viz.two_images import save_matches

    images = [
        ImageFeatures(f"{i}.png", pixels.shape[1::-1], POINTS, np.eye(8, dtype=np.float32))
        for i, pixels in enumerate(PIXELS)
    ]
    save_matches(path, PIXELS, images, match_images(*images), "affine")


def _pair(agrees):
    from rrt.report.explanation import AttentionPanel, Pair
    from rrt.rerankers.geometric import Correspondences

    links = np.stack([np.arange(8)] * 2, axis=1)
    panel = AttentionPanel((POINTS, POINTS), (np.arange(8.0), np.arange(8.0)), links, np.linspace(2, 1, 8), agrees)
    found = Correspondences(POINTS, POINTS, np.ones(8, bool), np.eye(2, 3))
    return Pair(("a.png", "b.png"), PIXELS, {"logit": 1.0}, panel, found, "attention from CLS (1 = an equal share)")


def pair_of_images(path, monkeypatch):
    from rrt.report.pair import draw_pair

    save_figure(draw_pair(_pair(np.arange(8) % 2 == 0)), path)


def pair_without_a_transform(path, monkeypatch):
    from rrt.report.pair import draw_pair

    save_figure(draw_pair(_pair(None)), path)


# {file that writes images: what makes one}
MAKERS = {
    "rrt/training/log.py": [curves_of_rrt, curves_of_rrt_without_a_watched_set],
    "delg_extract/training/log.py": [curves_of_delg],
    "rrt/evaluation/comparison.py": [comparison],
    "rrt/evaluation/token_costs.py": [tokens],
    "rrt/evaluation/calibrating.py": [reliability],
    "rrt/training/recipes.py": [recipes],
    "delg_extract/show_attention.py": [attention_of_delg],
    "rrt/viz/two_images.py": [matches_of_images],
    "rrt/report/pair.py": [pair_of_images, pair_without_a_transform],
    "rrt/commands/show_pair.py": [pair_of_images],
}


def texts(legend):
    return [text.get_text().strip() for text in legend.get_texts()]


def in_grey(handle):
    """What is left of a legend's line or mark without its colour."""
    if isinstance(handle, Line2D):
        return handle.get_linestyle(), handle.get_marker()
    if isinstance(handle, PathCollection):
        return handle.get_paths()[0].vertices.tobytes()
    return in_grey(handle[0])  # of error bars


@pytest.mark.parametrize(
    "make", sorted({make for makers in MAKERS.values() for make in makers}, key=lambda make: make.__name__)
)
def test_axes_are_labelled_legends_speak_and_lines_differ_without_colours(make, tmp_path, monkeypatch):
    figures, write = [], Figure.savefig

    def savefig(self, *arguments, **options):
        figures.append(self)
        write(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    make(tmp_path / "figure.png", monkeypatch)
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG" and np.asarray(image.convert("L")).std() > 3
    [figure] = figures
    legends = list(figure.legends)
    for axis in figure.axes:
        is_colour_bar = hasattr(axis, "_colorbar")
        assert axis.get_ylabel() and (is_colour_bar or axis.get_xlabel()), make.__name__
        assert axis.axison
        handles = axis.get_legend_handles_labels()[0]
        assert len(set(map(in_grey, handles))) == len(handles), make.__name__
        legends += filter(None, [axis.get_legend()])
        # Several lines or marks that mean different things are told apart by a legend.
        assert len(handles) < 2 or axis.get_legend() is not None
    assert legends and all(texts(legend) and all(texts(legend)) for legend in legends), make.__name__
    for legend in figure.legends:
        named = [handle for handle in legend.legend_handles if handle.get_linestyle() != "None"]
        assert len(set(map(in_grey, named))) == len(named)


def test_these_are_all_the_files_that_write_pictures_and_one_alone_knows_how():
    writers = {str(path.relative_to(ROOT)): path.read_text() for path in SOURCES}
    shared = "rrt/viz/style.py"
    assert {name for name, text in writers.items() if re.search(r"\bsave_figure\(", text)} - {shared} == set(MAKERS)
    assert {name for name, text in writers.items() if ".savefig(" in text} == {shared}
    assert not {name for name, text in writers.items() if "pyplot" in text}


def test_colour_maps_are_perceptually_uniform():
    known = re.compile(r"""(?:cmap=|colormaps\[|ScalarMappable\([^"]*|"cmap": |COLOURS = )"(\w+)\"""")
    used = {name for path in SOURCES for name in known.findall(path.read_text())}
    assert used and used <= {"viridis", "cividis", "plasma", "inferno", "magma", "gray"}


def test_the_suffix_says_the_format_and_an_unknown_one_is_refused(tmp_path):
    for suffix in FIGURE_SUFFIXES:
        check_figure_path(tmp_path / f"a{suffix.upper()}")
        assert save_figure(Figure(), tmp_path / f"a{suffix}").stat().st_size > 100
    for name in ("a.gif", "a", "a.png.txt"):
        with pytest.raises(InputError, match="choose a name that ends in .png"):
            check_figure_path(name)
