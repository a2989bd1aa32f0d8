"""Fusion of global similarity and logit: its formula, at the ends and in between, and the file of its numbers."""

import json
import re

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.rerankers.fusion import Fusion, read_fusion

SIMILARITIES, LOGITS = np.float32([0.8, 0.1, -0.2]), np.float32([0.0, 0.5, -1.5])


def test_scores_blend_similarity_and_probability():
    expected = 0.25 * SIMILARITIES + 0.75 / (1 + np.exp(-2 * LOGITS.astype(np.float64)))
    np.testing.assert_allclose(Fusion(0.25, 2.0).scores(SIMILARITIES, LOGITS), expected, rtol=1e-12)
    np.testing.assert_allclose(Fusion(1, 1e-9).scores(SIMILARITIES, LOGITS), SIMILARITIES)
    assert Fusion().scores(SIMILARITIES, LOGITS) is LOGITS and Fusion() == Fusion(0.0, 1.0)


def test_probabilities_of_half_precision_logits_do_not_tie():
    scores = Fusion(0.5, 1.0).scores(np.zeros(2), np.float16([11.5, 11.6]))
    assert scores.dtype == np.float64 and scores[0] < scores[1]


@pytest.mark.filterwarnings("error")
def test_probabilities_of_extreme_logits_are_nothing_and_all():
    with np.errstate(all="raise", under="ignore"):
        scores = Fusion(0.5, 3.0).scores(np.zeros(4), np.float32([-3e38, -1e4, 1e4, 3e38]))
    assert scores.tolist() == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize(
    "settings, said",
    [
        ((-0.1,), "lambda=-0.1"),
        ((1.1,), "lambda=1.1"),
        ((np.nan,), "lambda=nan"),
        ((0.5, 0.0), "temperature=0.0"),
        ((0.5, -1.0), "temperature=-1.0"),
        ((0.5, np.nan), "temperature=nan"),
    ],
)
def test_impossible_numbers_are_refused(settings, said):
    with pytest.raises(InputError, match=f"fusion: {said} must"):
        Fusion(*settings)


def test_the_file_says_more_than_the_settings(tmp_path):
    path = tmp_path / "fusion.json"
    path.write_text(
        json.dumps({"lambda": 0.3, "temperature": 2, "note": "größer"}, ensure_ascii=False), encoding="utf-8"
    )
    assert read_fusion(path, 0.1, 5.0) == read_fusion(str(path)) == Fusion(0.3, 2.0)
    assert read_fusion(None, 0.1, 5.0) == Fusion(0.1, 5.0) and read_fusion("") == Fusion(0.0, 1.0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"lambda": 0.3}',
        '{"lambda": "x", "temperature": 1}',
        '{"lambda": null, "temperature": 1}',
        '{"lambda": 2, "temperature": 1}',
        b"\xff\xfe",
    ],
)
def test_a_file_without_them_is_refused_by_name(tmp_path, content):
    path = tmp_path / "fusion.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(f"{path}: no lambda and temperature in it (") + ".*tune_fusion"):
        read_fusion(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'x.json'}: no such file; make it with")):
        read_fusion(tmp_path / "x.json")
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        read_fusion(tmp_path)
