"""tools/encode_store.py, and evaluate_revisited.py with what it wrote."""

import json

import numpy as np
import pytest
import torch
from commands import assert_one_line_error, run_tool
from reranking import NETWORK, make_measured_world, toy_dataset, typed

from rrt import LATE, Reranker
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.network import late_scorer
from rrt.network.checkpoint import save_checkpoint
from rrt.network.encoding import encode_file
from rrt.rerankers.base import SearchSpace
from rrt.rerankers.transformer import Transformer
from rrt.store.store import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = make_measured_world(tmp_path_factory.mktemp("late"))
    torch.manual_seed(0)
    network = LATE(NETWORK["num_global_features"], NETWORK["num_local_features"])
    torch.nn.init.normal_(network.change.weight, std=0.3)
    save_checkpoint(root / "late.pt", network, settings={"model": network.settings, "max_sequence_len": 20})
    return root


def evaluate(root, folder, **settings):
    settings = {"temp_dir": folder, "cpu": True, "resume": root / "late.pt"} | settings
    return evaluate_run(typed(EvaluationSettings, toy_dataset(root), model={}, **settings))


def test_what_the_command_wrote_is_measured_like_the_store_it_was_made_of(root, tmp_path, monkeypatch):
    finished = run_tool(
        "tools/encode_store.py", root / "test/delg_toy.h5", root / "late.pt", tmp_path / "out.h5", "--cpu"
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"wrote {tmp_path / 'out.h5'}: 36 images, ")
    plain = evaluate(root, tmp_path / "plain")
    monkeypatch.setattr(late_scorer, "read_images", lambda *_: pytest.fail("encoded anew"))
    found = evaluate(root, tmp_path / "encoded", encoded=tmp_path / "out.h5")
    assert found.numbers["RRT"]["M_map"] == pytest.approx(plain.numbers["RRT"]["M_map"], abs=0.5)
    recorded = json.loads((tmp_path / "encoded/results.json").read_text())["protocol"]
    assert recorded["encoded"] == str(tmp_path / "out.h5") and recorded["network"] == "LATE"
    assert recorded["encoded_keep"] is None


def test_vectors_that_are_left_out_are_neither_stored_nor_matched(root, tmp_path):
    out, store = tmp_path / "few.h5", Store(root / "test/delg_toy.h5")
    assert encode_file(store.path, root / "late.pt", out, cpu=True, keep=3)[2] == 3
    evaluate(root, tmp_path, encoded=out)
    assert json.loads((tmp_path / "results.json").read_text())["protocol"]["encoded_keep"] == 3
    method = Transformer(Reranker.from_checkpoint(root / "late.pt", device="cpu", encoded=out))
    space = SearchSpace(store, np.arange(4), np.arange(len(store)), None)
    # A vector is float16 and has a weight.
    assert method.bytes_per_image(space) == 4 * store.global_dim + 3 * (2 * store.local_dim + 4)


def test_a_checkpoint_of_the_other_network_is_one_line(root, tmp_path):
    finished = run_tool("tools/encode_store.py", root / "test/delg_toy.h5", root / "published.pt", tmp_path / "out.h5")
    assert_one_line_error(finished, "published.pt", "another architecture")
    assert not list(tmp_path.iterdir())


def test_a_late_goes_through_safetensors(root, tmp_path):
    saved = Reranker.from_checkpoint(root / "late.pt", device="cpu")
    saved.save_pretrained(tmp_path)
    opened = Reranker.from_pretrained(tmp_path, device="cpu")
    assert opened.model.settings == saved.model.settings
    for name, tensor in saved.model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], tensor)
