"""rrt/rerankers/late.py: the logits of LATE without PyTorch are those of the network."""

import pickle

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
from rrt.rerankers.late import Late, LateEncoder
from rrt.rerankers.transformer import Transformer
from rrt.store.joined import JoinedStore
from rrt.store.memory import MemoryStore

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


def test_an_image_of_a_store_is_encoded_once_and_by_any_number_of_threads_alike(space, tmp_path, monkeypatch):
    file = str(strip_checkpoint(save_late(tmp_path), tmp_path / "late.safetensors"))
    plain, read = Late(model=file).scores(space, [Shortlist(1, np.arange(6), np.zeros(6, np.float32))]), []

    def encode(encoder, batch, i, plainly=LateEncoder.encode):
        read.append(i)
        return plainly(encoder, batch, i)

    monkeypatch.setattr(LateEncoder, "encode", encode)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    method, query = Late(model=file), MemoryStore.of([space.store[1].record()])
    for images, expected in ((np.arange(6), 7), (np.array([5, 0, 5]), 8)):  # a query from anywhere is encoded anew
        joined = SearchSpace(JoinedStore(space.store, query, same_names=True), np.array([6]), np.arange(6))
        (found,) = method.scores(joined, [Shortlist(0, images, np.zeros(len(images), np.float32))])
        np.testing.assert_allclose(found, plain[0][images], rtol=1e-5, atol=1e-5)
        assert len(read) == expected
        query = MemoryStore.of([space.store[1].record()])
    monkeypatch.setattr("rrt.rerankers.late._KEPT", 2)
    for images, expected in (([1, 2], 9), ([3, 4, 5], 12), ([3], 14)):  # no more than two are kept
        method.scores(space, [Shortlist(1, np.array(images), np.zeros(len(images), np.float32))])
        assert len(read) == expected
    assert pickle.loads(pickle.dumps(method)) == method


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
