"""tools/choose_method.py: the best mean of several comparisons."""

import json

import pytest
from commands import error_of

from rrt.commands import choose_method as tool


def write(path, **maps):
    path.write_text(json.dumps({"rows": [{"method": name, "map": {"medium": value}} for name, value in maps.items()]}))
    return str(path)


def test_the_best_mean_stands_first(tmp_path, monkeypatch, capsys):
    paths = [write(tmp_path / "a.json", one=50.0, two=40.0), write(tmp_path / "b.json", one=50.0, two=70.0)]
    monkeypatch.setattr("sys.argv", ["choose_method.py", *paths, "--output", str(tmp_path / "out.md")])
    tool.main()
    lines = (tmp_path / "out.md").read_text().splitlines()
    assert lines[2:] == ["| two | 55.00 | 40.00–70.00 |", "| one | 50.00 | 50.00–50.00 |"]
    assert "\n".join(lines) in capsys.readouterr().out


@pytest.mark.parametrize(
    "second, named",
    [
        ('{"rows": [{"method": "one", "map": {"medium": 1}}]}', "other methods than"),
        ("[]", "no Medium mAP"),
        ("{", "no Medium mAP"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, monkeypatch, capsys, second, named):
    first, other = write(tmp_path / "a.json", one=50.0, two=40.0), tmp_path / "b.json"
    if second is not None:
        other.write_text(second)
    message = error_of(tool.main, [first, other], monkeypatch, capsys)
    assert "b.json" in message and named in message
