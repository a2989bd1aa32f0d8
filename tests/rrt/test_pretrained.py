"""Rerankers by name: shipped, of a folder, of a hub; saved with their settings in a file that can run no code."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from builders import make_records, make_store
from safetensors.torch import save_file

import rrt
from rrt.errors import InputError
from rrt.files.shipped import shipped
from rrt.network.checkpoint import save_checkpoint
from rrt.network.late import LATE
from rrt.network.model import RRT
from rrt.pretrained import NETWORKS
from rrt.rerankers import make_method
from rrt.rerankers.shipped import SETTINGS as SHIPPED

SETTINGS = {"num_global_features": 16, "num_local_features": 8, "dim_feedforward": 16, "num_encoder_layers": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(A reranker, the folder it was saved to)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    reranker = rrt.Reranker(RRT(**SETTINGS), max_local=7, binning="exact", device="cpu")
    reranker.save_pretrained(folder)
    return reranker, folder


def test_what_was_saved_scores_the_same_and_keeps_its_settings(saved, tmp_path):
    reranker, folder = saved
    store = make_store(tmp_path, n=5)
    for name in (folder, folder / "model.safetensors"):
        loaded = rrt.Reranker.from_pretrained(name, device="cpu")
        assert (loaded.max_local, loaded.binning) == (7, "exact") and isinstance(loaded, rrt.Reranker)
        np.testing.assert_array_equal(loaded.logits(store[0], store[1:]), reranker.logits(store[0], store[1:]))
    assert repr(loaded).startswith("<RRT of 0.0 million weights, ") and "model.safetensors" in repr(loaded)
    # As any other file: for others to read, unless the umask says otherwise.
    (folder / "beside").touch()
    assert (folder / "model.safetensors").stat().st_mode == (folder / "beside").stat().st_mode


def test_the_other_kind_of_network_keeps_its_kind(tmp_path):
    torch.manual_seed(1)
    size = {name: SETTINGS[name] for name in ("num_global_features", "num_local_features", "dim_feedforward")}
    reranker = rrt.Reranker(LATE(**size), device="cpu")
    store = make_store(tmp_path, n=4)
    reranker.save_pretrained(tmp_path / "late")
    loaded = rrt.Reranker.from_pretrained(tmp_path / "late", device="cpu")
    assert repr(loaded).startswith("<LATE of ")
    np.testing.assert_array_equal(loaded.logits(store[0], store[1:]), reranker.logits(store[0], store[1:]))


def test_a_checkpoint_is_taken_by_its_path_too(saved, tmp_path):
    reranker, _ = saved
    path = save_checkpoint(tmp_path / "x.pt", reranker.model, settings={"model": reranker.model.settings})
    for name in (path, tmp_path):
        assert rrt.Reranker.from_pretrained(str(name), device="cpu").model.settings == reranker.model.settings


def test_the_shipped_models_are_listed_and_have_a_reranker():
    assert list(rrt.list_models()) == ["lite0", *(name for name, file in NETWORKS.items() if shipped(file).is_file())]
    records = make_records("abc", global_dim=512, local_dim=128)
    ranked = rrt.Reranker.from_pretrained("lite0", device="cpu").rerank(records[0], records)
    assert ranked.images[0] is records[0]


def test_a_network_that_comes_with_the_package_is_taken_by_its_name_and_for_lite0(saved, tmp_path, monkeypatch):
    reranker, folder = saved
    save_checkpoint(tmp_path / "rrt_lite0.pt", reranker.model, settings={"model": reranker.model.settings})
    monkeypatch.setattr("rrt.pretrained.shipped", lambda name: tmp_path / name)
    assert list(rrt.list_models()) == ["lite0", "rrt_lite0"]
    for name in ("lite0", "rrt_lite0"):
        assert rrt.Reranker.from_pretrained(name, device="cpu").checkpoint == tmp_path / "rrt_lite0.pt"
    (tmp_path / "late_lite0.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert rrt.Reranker.from_pretrained("lite0", device="cpu").checkpoint == tmp_path / "late_lite0.safetensors"


def test_without_a_network_lite0_is_plain_matching(tmp_path, monkeypatch):
    monkeypatch.setattr("rrt.pretrained.shipped", lambda name: tmp_path / name)
    assert rrt.Reranker.from_pretrained("lite0", device="cpu") == make_method(
        "maxsim", SHIPPED["maxsim"] | {"device": "cpu"}
    )
    with pytest.raises(InputError, match="rrt_lite0: no such file"):
        rrt.Reranker.from_pretrained("rrt_lite0")


def test_every_damaged_or_foreign_file_is_one_line(saved, tmp_path):
    _, folder = saved
    whole = (folder / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    tensors = {"x": torch.zeros(2)}
    for content in (b"", whole[:100], whole[:-1], b"\xff" * 50):
        path.write_bytes(content)
        with pytest.raises(InputError, match="model.safetensors: no network in safetensors"):
            rrt.Reranker.from_pretrained(path)
    for metadata in ({"rrt": "[]"}, {"rrt": "{"}, {"rrt": '{"model": 1}'}):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(InputError, match="no network in safetensors"):
            rrt.Reranker.from_pretrained(path)
    save_file(tensors, path, metadata={"rrt": json.dumps({"model": SETTINGS})})
    with pytest.raises(InputError, match="another architecture"):
        rrt.Reranker.from_pretrained(path)


@pytest.mark.parametrize(
    "name, said",
    [
        ("lite1", "nor a model of the package \\(lite0"),
        ("no/such/folder", "no such file or folder"),
        ("../x", "no such file or folder"),
    ],
)
def test_a_name_of_nothing_is_refused(name, said, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # whatever lies beside the folder that the tests run in
    with pytest.raises(InputError, match=said):
        rrt.Reranker.from_pretrained(name)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no model.safetensors"):
        rrt.Reranker.from_pretrained(tmp_path)


@pytest.fixture
def hub(saved, monkeypatch, tmp_path):
    """A hub on this machine that has owner/name; returns the paths it was asked for."""
    content = (saved[1] / "model.safetensors").read_bytes()
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            there = self.path.startswith("/owner/name/resolve/") and self.path.endswith("model.safetensors")
            self.send_response(200 if there else 404)
            error = "EntryNotFound" if "/owner/" in self.path else "RepoNotFound"
            self.send_header("X-Repo-Commit", "0" * 40) if there else self.send_header("X-Error-Code", error)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content) if there else 0))
            self.end_headers()
            if there and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *given):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    import huggingface_hub.constants

    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield asked
    server.shutdown()
    server.server_close()


def test_a_model_of_a_hub_is_fetched_once(saved, hub):
    reranker, _ = saved
    loaded = rrt.Reranker.from_pretrained("owner/name@v1", device="cpu")
    assert "/owner/name/resolve/v1/model.safetensors" in hub
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, reranker.model.state_dict()[name])


def test_what_a_hub_does_not_have_is_one_line(hub):
    with pytest.raises(InputError, match="owner/other: has no model.safetensors"):
        rrt.Reranker.from_pretrained("owner/other")
    with pytest.raises(InputError, match="nobody/name: neither a file, a folder nor a model"):
        rrt.Reranker.from_pretrained("nobody/name")


def test_a_hub_that_is_away_is_said_to_be_away(monkeypatch, tmp_path, capfd):
    import socket

    import huggingface_hub.constants

    with socket.socket() as server:  # bound, but nobody listens
        server.bind(("127.0.0.1", 0))
        template = f"http://127.0.0.1:{server.getsockname()[1]}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's attempts
        said = (
            "owner/name: no such folder, and the Hugging Face hub cannot be asked \\(LocalEntryNotFoundError\\); fetch"
        )
        with pytest.raises(InputError, match=said):
            rrt.Reranker.from_pretrained("owner/name")
    assert capfd.readouterr().err == ""
