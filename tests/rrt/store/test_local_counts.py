"""Stores without local descriptors are refused by what compares them; where some images have none, a line says how
many."""

import numpy as np
import pytest
from builders import make_store
from reranking import small_network

from rrt.errors import InputError
from rrt.network.checkpoint import save_checkpoint, strip_checkpoint
from rrt.network.networks import make_network
from rrt.network.reranker import Reranker
from rrt.photo_index.segments import warn_of_matchless
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.build import make_chain
from rrt.rerankers.codebook import Codebook
from rrt.retriever import Retriever
from rrt.store.local_counts import tell_of_extraction
from rrt.store.records import Skipped

SIZES = {"global_dim": 12, "local_dim": 16}


@pytest.fixture
def settings(tmp_path):
    """Of every method that compares local descriptors."""
    Codebook(np.eye(4, 16, dtype=np.float32), {}).save(tmp_path / "words.npz")
    late = make_network({"kind": "LATE", "num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24})
    strip_checkpoint(
        save_checkpoint(tmp_path / "late.pt", late, settings={"model": late.settings}), tmp_path / "late.safetensors"
    )
    return {
        "late": {"model": str(tmp_path / "late.safetensors")},
        "rrt": {"reranker": Reranker(small_network())},
        "maxsim": {"device": "cpu"},
        "geometric": {"device": "cpu"},
        "asmk": {"codebook": str(tmp_path / "words.npz")},
    }


def space_of(folder, counts):
    """Two queries and a gallery of images with these numbers of local descriptors."""
    store = make_store(folder, len(counts), num_local=list(counts), **SIZES)
    return SearchSpace(store, np.arange(2), np.arange(2, len(counts)))


@pytest.mark.parametrize("name", ["rrt", "late", "maxsim", "geometric", "asmk", "superglobal+maxsim"])
def test_reranking_by_local_descriptors_refuses_images_that_have_none(tmp_path, settings, name, capsys):
    method = make_chain(name, {part: settings[part] for part in name.split("+") if part in settings})
    shortlist = Shortlist(0, np.arange(3), np.zeros(3, np.float32))
    for counts, part in (
        ([0] * 5, "holds no local descriptors, which the reranker '.*' compares: 5 of 5 images lack them"),
        ([4, 4, 0, 0, 0], "not one of 3 images has local descriptors.*'jpg/img_002.jpg'"),
        ([0, 0, 4, 4, 4], "not one of 2 images has local descriptors.*'jpg/img_000.jpg'"),
    ):
        space = space_of(tmp_path, counts)
        with pytest.raises(InputError, match=part):
            method.prepare(space)
        if not any(counts[2:]) and "+" not in name:
            with pytest.raises(InputError, match="local descriptors"):
                method.scores(space, [shortlist])
    assert capsys.readouterr().err == ""
    method.prepare(space_of(tmp_path, [4, 4, 4, 0, 4]))
    assert "1 of 5 images have no local descriptors" in capsys.readouterr().err
    method.prepare(space_of(tmp_path, [4] * 5))
    assert capsys.readouterr().err == ""


def test_a_retriever_with_a_reranker_refuses_a_store_without_local_descriptors(tmp_path):
    store = make_store(tmp_path, 4, num_local=0, **SIZES)
    with pytest.raises(InputError, match="4 of 4 images lack them"):
        Retriever(store, Reranker(small_network()))
    assert len(Retriever(store).search(0, 2).names) == 2


def test_an_index_tells_of_new_photographs_without_local_descriptors(tmp_path, capsys):
    names = ["0" * 64, "1" * 64]
    segment = make_store(tmp_path, names=names, num_local=[3, 0]).path
    warn_of_matchless(tmp_path, segment, dict(zip(names, ["/a/x.jpg", "/a/y.jpg"])))
    told = "1 of 2 new photographs have no local descriptors and match nothing (first '/a/y.jpg')"
    assert told in capsys.readouterr().err


def test_an_extraction_tells_how_many_local_descriptors_an_image_has(tmp_path, capsys):
    path = make_store(tmp_path, 4, num_local=[0, 6, 3, 0]).path
    tell_of_extraction(path, 5, [Skipped("e.jpg", "cut off")], remedy="; lower it")
    told = capsys.readouterr()
    assert told.out == (f"wrote {path}: 4 images, 2.2 local descriptors an image (0 to 6)\nskipped e.jpg: cut off\n")
    assert told.err.startswith(f"warning: {path}: 2 of 4 images have no local descriptors")
    assert told.err.endswith("(first 'jpg/img_000.jpg'); lower it\n") and told.err.count("\n") == 1
    tell_of_extraction(path, 4, [], with_locals=False)
    assert capsys.readouterr() == (f"wrote {path}: 4 images\n", "")
