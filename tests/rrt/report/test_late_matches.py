"""rrt/report/late_matches.py: what a pair's score is made of, and its drawing."""

import numpy as np
import pytest
import torch
from builders import make_store
from PIL import Image

from rrt import LATE, InputError, Reranker
from rrt.network.checkpoint import save_checkpoint
from rrt.report.explanation import AttentionView, explain_pair
from rrt.report.late_matches import pair_matches
from rrt.report.pair import write_pair

COUNTS = [9, 5, 0, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matches")
    names = [f"{i}.png" for i in range(len(COUNTS))]
    make_store(folder, names=names, num_local=COUNTS, global_dim=12, local_dim=16, size=(60, 40))
    for name in names:
        Image.new("RGB", (60, 40)).save(folder / name)
    for symmetric in (True, False):
        torch.manual_seed(0)
        network = LATE(12, 16, 24, symmetric=symmetric)
        for layer in (network.change, network.weigh):
            torch.nn.init.normal_(layer.weight, std=0.3)
        settings = {"model": network.settings, "max_sequence_len": 8}
        save_checkpoint(folder / f"{symmetric}.pt", network, settings=settings)
    return folder


def open_reranker(folder, symmetric=True):
    return Reranker.from_checkpoint(folder / f"{symmetric}.pt", device="cpu")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("pair", [(0, 1), (3, 0), (0, 2)])
def test_the_matches_sum_to_what_is_scored(folder, symmetric, pair):
    from rrt.store.store import Store

    reranker, store = open_reranker(folder, symmetric), Store(folder / "delg_test.h5")
    found = pair_matches(reranker.model, store, *pair, max_local=8)
    assert found.logit == pytest.approx(reranker.score(store[pair[0]], store[pair[1]]), abs=1e-5)
    assert found.strengths.shape == tuple(min(8, COUNTS[image]) for image in pair)
    for share in found.shares:
        assert not len(share) or share.mean() == pytest.approx(1, abs=1e-5)
    if found.strengths.size:
        # A best match for each descriptor of the query, and with both directions for each of the candidate, too.
        assert (found.strengths != 0).any(1).all() and (found.strengths != 0).any(0).all() >= symmetric


def test_a_pair_is_drawn_with_its_weights_and_matches(folder, tmp_path):
    reranker, path = open_reranker(folder), folder / "delg_test.h5"
    pair = explain_pair(path, 0, 1, folder, reranker, geometric=False, view=AttentionView(links=3))
    assert pair.panel is not None and pair.panel.links.shape == (3, 2) and pair.colours.startswith("weight")
    assert (np.diff(pair.panel.strengths) <= 0).all() and len(pair.panel.values[0]) == 8
    told = write_pair(tmp_path, path, 0, 1, folder, reranker, geometric=False)
    (picture,) = told["images"]
    assert picture["title"] == "What the late-interaction transformer matches" and (tmp_path / picture["file"]).exists()
    assert "strongest matches" in picture["caption"] and "attend" not in picture["caption"]


@pytest.mark.parametrize("view", [{"layer": 0}, {"head": 1}, {"attention": "rollout"}])
def test_what_only_attention_has_is_refused(folder, view):
    with pytest.raises(InputError, match="is of model.RRT; of a model.LATE weights and matches are drawn"):
        explain_pair(folder / "delg_test.h5", 0, 1, folder, open_reranker(folder), False, view=AttentionView(**view))
