"""tools/strip_checkpoint.py: the network and what its use needs, nothing else."""

import pytest
import torch
from commands import error_of
from reranking import NETWORK

from rrt.commands import strip_checkpoint as tool
from rrt.errors import InputError
from rrt.network.checkpoint import load_checkpoint, load_weights, save_checkpoint, strip_checkpoint
from rrt.network.model import RRT
from rrt.network.reranker import Reranker


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    network = RRT(**NETWORK)
    settings = {
        "model": network.settings,
        "scale_binning": "exact",
        "max_sequence_len": 7,
        "dataset": {"train_data_dir": "private/folder"},
        "selection": {"select_on": "last"},
    }
    optimizer = torch.optim.AdamW(network.parameters())
    return network, save_checkpoint(tmp_path / "best.pt", network, optimizer, settings, {"epoch": 3}, {"random": [1]})


@pytest.mark.parametrize("half", [False, True])
def test_the_network_stays_and_the_training_goes(trained, tmp_path, half):
    network, path = trained
    stripped = load_checkpoint(strip_checkpoint(path, tmp_path / "out.pt", half))
    again = RRT(**NETWORK)
    load_weights(again, stripped)
    for name, tensor in network.state_dict().items():
        found = again.state_dict()[name]
        assert found.dtype == torch.float32
        assert torch.equal(found, tensor.half().float() if half else tensor)
    assert stripped.optim is None and stripped.progress == stripped.training == {}
    assert b"private" not in (tmp_path / "out.pt").read_bytes()
    reranker = Reranker.from_checkpoint(tmp_path / "out.pt")
    assert (reranker.binning, reranker.max_local) == ("exact", 7)
    assert (tmp_path / "out.pt").stat().st_size < path.stat().st_size


def test_a_file_that_stands_there_and_weights_that_do_not_fit_are_named(trained, tmp_path, monkeypatch, capsys):
    network, path = trained
    assert "best.pt: exists" in error_of(tool.main, [path, path], monkeypatch, capsys)
    assert "no such checkpoint" in error_of(tool.main, [tmp_path / "no.pt", tmp_path / "out.pt"], monkeypatch, capsys)
    with torch.no_grad():
        next(network.parameters()).fill_(1e6)
    save_checkpoint(path, network)
    with pytest.raises(InputError, match="too large for half precision"):
        strip_checkpoint(path, tmp_path / "out.pt", half=True)
    assert not (tmp_path / "out.pt").exists()
