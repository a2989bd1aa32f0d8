"""rrt/network/encoded_store.py: a gallery encoded before gives the logits of one that is encoded now."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from builders import make_store

import rrt
from rrt import InputError
from rrt.network import late_scorer
from rrt.network.checkpoint import save_checkpoint
from rrt.network.encoded_store import encode_store, open_encoded
from rrt.network.encoding import encode_file
from rrt.network.late import matched
from rrt.network.late_scorer import LateScorer
from rrt.network.networks import make_network
from rrt.store.check import check_store
from rrt.store.compress import make_store as compress
from rrt.store.joined import JoinedStore
from rrt.store.store import Store

COUNTS = [9, 0, 4, 4, 1, 12, 7, 0, 3, 20]
NETWORK = {"kind": "LATE", "num_global_features": 12, "num_local_features": 16, "dim_feedforward": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture(scope="module")
def store(folder):
    return make_store(folder, n=len(COUNTS), num_local=COUNTS, global_dim=12, local_dim=16)


@pytest.fixture(scope="module")
def checkpoint(folder):
    torch.manual_seed(0)
    network = make_network(NETWORK)
    with torch.no_grad():
        for parameter in (*network.change.parameters(), *network.weigh.parameters()):
            parameter.normal_(std=0.3)
    return save_checkpoint(folder / "late.pt", network, settings={"model": network.settings, "max_sequence_len": 8})


@pytest.fixture(scope="module")
def encoded(folder, store, checkpoint):
    path, images, vectors, _ = encode_file(store.path, checkpoint, folder / "encoded.h5", cpu=True)
    assert (images, vectors) == (len(COUNTS), np.minimum(COUNTS, 8).mean())
    return path


def open_reranker(checkpoint, encoded=None, **settings):
    return rrt.Reranker.from_checkpoint(checkpoint, device="cpu", encoded=encoded, **settings)


def test_an_encoded_gallery_gives_the_same_logits_without_the_network(store, checkpoint, encoded, monkeypatch):
    expected = open_reranker(checkpoint).logits(store[5], store[:])
    monkeypatch.setattr(late_scorer, "read_images", lambda *_: pytest.fail("encoded anew"))
    np.testing.assert_allclose(open_reranker(checkpoint, encoded).logits(store[5], store[:]), expected, atol=2e-3)


def test_it_is_a_store_whose_attention_is_the_weights(store, checkpoint, encoded):
    check = check_store(encoded)
    assert not check.problems and check.summary["local descriptors"].startswith("16 x float16")
    network = open_reranker(checkpoint)
    scorer = network.scorer(store)
    with Store(encoded) as found:
        for image, (vectors, weights) in enumerate(scorer.encoded(np.arange(len(COUNTS)))):
            local, order = found.read(image), np.argsort(-weights.numpy(), kind="stable")
            np.testing.assert_allclose(local.attention, weights.numpy()[order], atol=1e-6)
            np.testing.assert_allclose(local.descriptors, vectors.numpy()[order], atol=1e-3)
            np.testing.assert_array_equal(local.keypoints, store.read(image, 8).keypoints[order])
            assert found.names[image] == store.names[image]
        np.testing.assert_array_equal(found.global_descriptors, store.global_descriptors)


def test_its_codes_of_bits_stand_for_it(store, checkpoint, encoded, tmp_path):
    small, _, _ = compress(encoded, tmp_path / "bits.h5", "bits", bits=16)
    exact, coded = (open_reranker(checkpoint, path).logits(store[5], store[:]) for path in (encoded, small))
    assert 0 < np.abs(exact - coded).max() < 0.5 * np.ptp(exact)


def test_of_every_image_those_vectors_are_kept_that_weigh_most(store, checkpoint, folder, tmp_path):
    few = encode_file(store.path, checkpoint, tmp_path / "few.h5", cpu=True, keep=3)[0]
    reranker = open_reranker(checkpoint, few)
    scorer, network = reranker.scorer(store), open_reranker(checkpoint).model
    encoded = []
    for vectors, weights in open_reranker(checkpoint).scorer(store).encoded(np.arange(len(COUNTS))):
        best = torch.argsort(-weights, stable=True)[:3]
        encoded.append((vectors[best], weights[best] / weights[best].sum()))
    with Store(few) as found:
        for image, (vectors, weights) in enumerate(encoded):
            np.testing.assert_allclose(found.read(image).attention, weights, atol=1e-6)
            np.testing.assert_allclose(found.read(image).descriptors, vectors, atol=1e-3)

    def logit(query, candidate):
        (own, own_weights), (other, other_weights) = encoded[query], encoded[candidate]
        cosine = torch.from_numpy(store.global_descriptors[[query, candidate]]).float()
        found = matched(own, own_weights, other[None], other_weights[None], symmetric=True)
        with torch.inference_mode():
            return network.combine(found, (cosine[0] @ cosine[1])[None]).item()

    filled = [image for image, count in enumerate(COUNTS) if count]
    expected = [logit(5, image) for image in filled]
    np.testing.assert_allclose(scorer.score(np.array([5]), [np.array(filled)])[0], expected, atol=2e-3)
    # A query that was not encoded before is cut down likewise.
    renamed = replace(store[5].record(), name="other.jpg")
    np.testing.assert_allclose(scorer.score_image(renamed, np.array(filled)), expected, atol=2e-3)
    with pytest.raises(InputError, match="made with encoded.keep"):
        encode_store(open_reranker(checkpoint).scorer(store), few)


def test_queries_from_elsewhere_meet_the_encoded_gallery(store, checkpoint, encoded, tmp_path):
    other = make_store(tmp_path, n=3, seed=5, global_dim=12, local_dim=16)
    query = replace(other[2].record(), name=store.names[0])
    plain, ready = open_reranker(checkpoint), open_reranker(checkpoint, encoded)
    expected = plain.logits(query, store[:])
    np.testing.assert_allclose(ready.logits(query, store[:]), expected, atol=2e-3)
    one_by_one = [plain.logits(query, [image.record()])[0] for image in store]
    np.testing.assert_allclose(expected, one_by_one, atol=1e-4)
    renamed = rrt.MemoryStore.of([query, other[1]])
    mixed = [plain.logits(query, [candidate])[0] for candidate in (store[3], other[1])]
    np.testing.assert_allclose(ready.logits(query, [store[3], renamed[1]]), mixed, atol=2e-3)


def test_a_gallery_joined_by_other_images_is_read_as_far_as_it_was_encoded(store, checkpoint, encoded, tmp_path):
    other = make_store(tmp_path, n=3, seed=5, global_dim=12, local_dim=16, names=["a.jpg", "b.jpg", "c.jpg"])
    joined = JoinedStore(store, other)
    pairs = [np.array([11, 2]), [np.array([0, 5, 12]), np.array([9, 10])]]
    plain, ready = (open_reranker(checkpoint, path).scorer(joined).score(*pairs) for path in (None, encoded))
    np.testing.assert_allclose(np.concatenate(plain), np.concatenate(ready), atol=2e-3)


def test_encoding_goes_on_after_the_last_whole_part(store, checkpoint, encoded, folder, monkeypatch):
    monkeypatch.setattr("rrt.network.encoded_store._BLOCK", 4)
    scorer, seen = open_reranker(checkpoint).scorer(store), []
    by_network = LateScorer._by_network

    def stumbling(self, images):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(images))
        return by_network(self, images)

    monkeypatch.setattr(LateScorer, "_by_network", stumbling)
    out = folder / "again.h5"
    with pytest.raises(KeyboardInterrupt):
        encode_store(scorer, out)
    assert not out.exists() and seen == [4, 4]
    seen.clear()
    assert encode_store(scorer, out) == out and seen == [2]
    assert encode_store(scorer, out) == out and seen == [2]
    with Store(out) as left, Store(encoded) as right:
        np.testing.assert_array_equal(left.local_descriptors, right.local_descriptors)


def test_what_does_not_belong_together_is_one_line(store, checkpoint, encoded, folder, tmp_path):
    with pytest.raises(InputError, match="encoded.h5: was encoded with max_local=8, now it is 5"):
        open_reranker(checkpoint, encoded, max_local=5)
    other = make_network(NETWORK)
    with pytest.raises(InputError, match="was encoded with network="):
        open_encoded(encoded, other, 8, "published")
    with pytest.raises(InputError, match="holds no encoded images; make it with tools/encode_store.py"):
        open_reranker(checkpoint, store.path)
    strange = make_store(tmp_path, n=3, seed=5, global_dim=12, local_dim=16)
    with pytest.raises(InputError, match="was not encoded from .*; encode that with tools/encode_store.py"):
        open_reranker(checkpoint, encoded).scorer(strange)
    plain = rrt.RRT(12, 16)
    published = save_checkpoint(tmp_path / "rrt.pt", plain, settings={"model": plain.settings})
    with pytest.raises(InputError, match="is for checkpoints of model.LATE"):
        open_reranker(published, encoded)
    with pytest.raises(InputError, match="rrt.pt: holds a network of model.RRT, which encodes no image alone"):
        encode_file(store.path, published, tmp_path / "x.h5", cpu=True)
    with pytest.raises(InputError, match="encoded.h5: is encoded already; encode the store that it was made of"):
        encode_file(encoded, checkpoint, tmp_path / "x.h5", cpu=True)
    assert not (tmp_path / "x.h5").exists()
    with pytest.raises(InputError, match="is the store to encode; give another name"):
        encode_file(store.path, checkpoint, store.path, cpu=True)
    with pytest.raises(InputError, match="made with encoded.max_local"):
        encode_store(LateScorer(open_reranker(checkpoint).model, store, 5), encoded)


@pytest.mark.parametrize("column", ["keypoints", "scales"])
def test_columns_that_are_copied_are_refused_naming_the_store_that_holds_them(checkpoint, tmp_path, column):
    with make_store(tmp_path, n=2, global_dim=12, local_dim=16) as spoilt:
        path = spoilt.path
    with h5py.File(path, "r+") as file:
        file[f"local/{column}"][6] = np.nan
    with pytest.raises(InputError) as error:
        encode_file(path, checkpoint, tmp_path / "x.h5", cpu=True)
    assert str(error.value).startswith(f"{path}: {column} of 'jpg/img_001.jpg' hold NaN or infinity; ")
