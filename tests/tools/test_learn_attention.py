"""tools/learn_attention.py: what a LATE weighs, as a function of one descriptor."""

import numpy as np
import pytest
import torch
from commands import assert_one_line_error, output_of, run_tool
from reranking import NETWORK, make_measured_world

from rrt import LATE
from rrt.commands.learn_attention import main
from rrt.extraction.attention import load_attention
from rrt.network.checkpoint import save_checkpoint
from rrt.store.linear import l2_normalize
from rrt.store.store import Store


def save(path, seed=None):
    """A LATE that weighs all alike or, with a seed, by a random direction of what a descriptor is in its image."""
    torch.manual_seed(0)
    network = LATE(NETWORK["num_global_features"], NETWORK["num_local_features"], positions=False, weight_range=9.0)
    if seed is not None:
        torch.nn.init.normal_(network.weigh.weight, std=1.0)
        torch.nn.init.zeros_(network.scale_encoder.weight)
        for layer in network.encoder.layers:
            for parameter in layer.parameters():
                torch.nn.init.zeros_(parameter)
    save_checkpoint(path, network, settings={"model": network.settings, "max_sequence_len": 20})
    return network


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_measured_world(tmp_path_factory.mktemp("attention"))


def test_descriptors_are_ordered_as_the_network_weighs_them(root, tmp_path):
    network = save(tmp_path / "late.pt", seed=1)
    printed = output_of(main, root / "test/delg_toy.h5", tmp_path / "late.pt", tmp_path / "a.npz", "--ridge", "0.001")
    assert printed.startswith(f"wrote {tmp_path / 'a.npz'}: learned from 36 images, explains ")
    attention = load_attention(tmp_path / "a.npz", NETWORK["num_local_features"])
    with Store(root / "test/delg_toy.h5") as store:
        descriptors = np.concatenate([l2_normalize(store.read(i).descriptors) for i in range(len(store))])
    # Without self-attention the network weighs a descriptor by its own direction alone.
    weighed = descriptors @ network.weigh.weight.detach().numpy()[0]
    assert np.corrcoef(attention.logit(descriptors), weighed)[0, 1] > 0.98


def test_what_cannot_be_learned_from_is_one_line_and_writes_nothing(root, tmp_path):
    save(tmp_path / "new.pt")
    (tmp_path / "none.txt").write_text("nobody.jpg,0,10,10\n")
    store, out = root / "test/delg_toy.h5", tmp_path / "out.npz"
    for arguments, words in (
        ((store, tmp_path / "new.pt", out), ("new.pt", "weighs all descriptors of an image alike")),
        ((store, root / "published.pt", out), ("published.pt", "another architecture")),
        ((store, tmp_path / "new.pt", out, "--list", tmp_path / "none.txt"), ("none.txt", "nobody.jpg")),
        ((store, tmp_path / "new.pt", out, "--images", "0"), ("images=0",)),
        ((store, tmp_path / "new.pt", tmp_path / "out.txt"), ("out.txt", "ends in .npz")),
    ):
        assert_one_line_error(run_tool("tools/learn_attention.py", *arguments), *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pt", "none.txt"]
