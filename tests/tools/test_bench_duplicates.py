"""tools/benchmark.py duplicates: the copies it makes, and its figures on cases worked by hand."""

import numpy as np
import pytest
from photo_folders import detailed
from PIL import Image

from rrt.errors import InputError
from tools.benchmarks.duplicates import CHANGES, figures, make_copies


def test_each_photograph_has_a_copy_of_every_kind_and_what_is_there_is_kept(tmp_path):
    (tmp_path / "from").mkdir()
    for seed in range(3):
        Image.fromarray(detailed(seed)).save(tmp_path / f"from/{seed}.png")
    Image.fromarray(detailed(9)[:100]).save(tmp_path / "from/small.png")
    given = tmp_path / "from", tmp_path / "to", 1, 10, 0
    source_of = make_copies(*given)
    written = {path: path.read_bytes() for path in (tmp_path / "to").rglob("*.jpg")}
    assert {path.relative_to(tmp_path / "to").as_posix() for path in written} == source_of.keys()
    assert len(CHANGES) == 10 and len(written) == len(CHANGES) + 3 and len(set(written.values())) == len(written)
    assert len(set(source_of.values())) == 3
    (removed,) = (tmp_path / "to/cropped").iterdir()
    removed.unlink()
    assert make_copies(*given) == source_of and removed.read_bytes() == written[removed]
    with pytest.raises(InputError, match="more than --sources 3"):
        make_copies(tmp_path / "from", tmp_path / "to", 3, 1, 0)


def test_precision_is_that_of_pairs_and_recall_that_of_copies():
    source_of = {name: f"o/{name[-1]}" for name in ("o/1", "o/2", "o/3", "grey/1", "grey/2", "framed/1")}
    rows = figures([["o/1", "grey/1", "o/3"], ["grey/2", "framed/1"]], source_of)
    values = {row.label: row.value for row in rows}
    # Of o/1-grey/1, o/1-o/3, grey/1-o/3 and grey/2-framed/1 the first is right; grey/1 alone stands with its source.
    assert values == pytest.approx({"precision": 1 / 4, "recall": 1 / 3, "recall: grey": 1 / 2, "recall: framed": 0})
    assert np.isclose(figures([], source_of)[0].value, 1)
