"""rrt/rerankers/late.py: the logits of LATE without PyTorch are those of the network."""

import numpy as np
import pytest
from builders import make_store
from reranking import save_late

from rrt.errors import InputError
from rrt.network.checkpoint import save_checkpoint, strip_checkpoint
from rrt.network.networks import make_network
from rrt.network.reranker import Reranker
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.build import make_chain
from rrt.rerankers.late import Late
from rrt.rerankers.transformer import Transformer

COUNTS = [9, 0, 4, 4, 1, 12]


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("a"), n=6, num_local=COUNTS, global_dim=12, local_dim=16)
    return SearchSpace(store, np.array([0, 1]), np.arange(6))


@pytest.mark.parametrize(
    "settings",
    [{}, {"vectors": False, "symmetric": False}, {"positions": False, "weight_range": 0.0, "num_encoder_layers": 1}],
)
def test_it_scores_as_the_network_does(space, tmp_path, settings):
    checkpoint = save_late(tmp_path, **settings)
    plain = strip_checkpoint(checkpoint, tmp_path / "late.safetensors")
    shortlists = [Shortlist(query, np.arange(6), np.zeros(6, np.float32)) for query in (0, 1)]
    expected = Transformer(Reranker.from_checkpoint(checkpoint, device="cpu")).scores(space, shortlists)
    method = Late(model=str(plain), local=7)
    method.prepare(space)
    for found, wanted in zip(method.scores(space, shortlists), expected):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        assert len(np.unique(np.round(found, 3))) > 3


def test_files_of_anything_else_are_one_line(space, tmp_path):
    other = make_network({"num_global_features": 12, "num_local_features": 16})
    path = save_checkpoint(tmp_path / "rrt.pt", other, settings={"model": other.settings})
    rrt_file = strip_checkpoint(path, tmp_path / "rrt.safetensors")
    (tmp_path / "text.safetensors").write_text("x")
    for file in (rrt_file, tmp_path / "text.safetensors", tmp_path / "nothing.safetensors"):
        with pytest.raises(InputError, match=rf"{file.name}: no model.LATE .*strip_checkpoint"):
            make_chain("late", {"late": {"model": str(file)}}).prepare(space)
    plain = strip_checkpoint(save_late(tmp_path, num_global_features=9), tmp_path / "late.safetensors")
    with pytest.raises(InputError, match="global descriptors have 12 dimensions, .*late.safetensors was trained on 9"):
        Late(model=str(plain)).prepare(space)
