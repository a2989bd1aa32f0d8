"""Checkpoints of transformers: damaged, pickled, of the hub; one line with the file and the remedy."""

import json
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import safetensors.torch
import torch
from places import ROOT
from tiny_backbones import save_backbone

from rrt.errors import InputError
from rrt.extraction.describer import open_describer
from rrt.extraction.transformers_files import PATTERNS, find_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("models"), "dinov2")


@pytest.fixture
def model(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def refusal(name):
    with pytest.raises(InputError) as error:
        open_describer(f"transformers:{name}", image_size=56)
    return str(error.value)


def rewritten(model, change):
    """The weights of the model, changed."""
    weights = safetensors.torch.load_file(model / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_that_is_not_there(tmp_path):
    assert "no such folder; give that of a model, or OWNER/NAME" in refusal(tmp_path / "absent")
    assert "no such folder" in refusal("../up")


def test_a_folder_without_a_model(tmp_path):
    assert "config.json: no such file" in refusal(tmp_path)


def test_pickled_weights_are_not_opened(model):
    weights = safetensors.torch.load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    assert "it holds no weights" in refusal(model)
    torch.save(weights, model / "pytorch_model.bin")
    assert "pickled (pytorch_model.bin), which can run code; only safetensors are read" in refusal(model)


def test_a_damaged_file(model):
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    message = refusal(model)
    assert str(model) in message and "cannot be loaded" in message and "fetch it again" in message


def test_weights_that_are_missing(model):
    rewritten(model, lambda weights: weights.pop("encoder.layer.1.norm1.weight"))
    assert "1 weights of Dinov2Model are missing, first" in refusal(model)


def test_weights_of_another_shape(model):
    rewritten(model, lambda weights: weights.update({"layernorm.weight": torch.ones(7)}))
    assert "cannot be loaded" in refusal(model)


def test_weights_that_are_not_finite(model):
    rewritten(model, lambda weights: weights["layernorm.weight"].fill_(float("nan")))
    assert "values that are not finite; the weights are damaged" in refusal(model)


def test_a_mask_token_that_nobody_looks_at_may_be_missing(model):
    rewritten(model, lambda weights: weights.pop("embeddings.mask_token"))
    assert open_describer(f"transformers:{model}", image_size=56).local_dim == 32


def test_a_head_without_weights_is_not_pooled_by(tmp_path):
    model = save_backbone(tmp_path, "vit")
    rewritten(model, lambda weights: [weights.pop(name) for name in list(weights) if name.startswith("pooler.")])
    assert open_describer(f"transformers:{model}", image_size=64).identity["global_pool"] == "cls"
    with pytest.raises(InputError, match="no trained head; give another --global_pool than pooled"):
        open_describer(f"transformers:{model}", image_size=64, global_pool="pooled")


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"model_type": "unheard_of"}, "config.json"),
        ({"hidden_size": "wide"}, "model"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Model"}}, "config.json"),
    ],
)
def test_a_configuration_that_is_not_understood_and_code_that_comes_with_a_model(model, changes, part):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (model / "own.py").write_text(f"open({str(model / 'ran')!r}, 'w')")
    assert part in refusal(model) and not (model / "ran").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"image_mean": [1, 2], "image_std": [1, 1]}', '{"image_mean": 0, "image_std": 1}']
)
def test_settings_of_the_preprocessor_that_are_no_such(model, text):
    (model / "preprocessor_config.json").write_text(text)
    assert "preprocessor_config.json: no settings of a preprocessor" in refusal(model)


def test_a_model_without_settings_of_its_preprocessor(model):
    (model / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json: no such file; put the model's own there" in refusal(model)
    nested = {"image_processor": {"do_normalize": False, "do_rescale": False}}
    (model / "processor_config.json").write_text(json.dumps(nested))
    found = find_checkpoint(str(model))
    assert (found.factor, found.mean.tolist(), found.std.tolist()) == (1, [0, 0, 0], [1, 1, 1])


def test_a_name_of_the_hub_fetches_configuration_and_safetensors_alone(saved, tmp_path, monkeypatch):
    snapshot = shutil.copytree(saved, tmp_path / "snapshots" / "abc123")
    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    describer = open_describer("transformers:facebook/dinov2-tiny@main", image_size=56)
    assert asked == {"name": "facebook/dinov2-tiny", "revision": "main", "allow_patterns": PATTERNS}
    assert describer.identity["model"] == "transformers:facebook/dinov2-tiny@abc123"
    assert not any(pattern.endswith(("bin", "pt", "py", "*")) for pattern in PATTERNS)


def _hub_error(kind):
    class Response:
        headers, request, status_code = {}, None, 404

    return kind("no", response=Response())


@pytest.mark.parametrize(
    "kind, part",
    [
        ("GatedRepoError", "accept its licence at https://huggingface.co/a/b and log in"),
        ("RepositoryNotFoundError", "neither a file, a folder nor a model of the Hugging Face hub"),
        ("LocalEntryNotFoundError", "the Hugging Face hub cannot be asked (LocalEntryNotFoundError)"),
    ],
)
def test_the_hub_refuses_or_is_not_there(monkeypatch, kind, part):
    from huggingface_hub import errors

    def refuse(*_, **__):
        error = getattr(errors, kind)
        raise error("no") if kind == "LocalEntryNotFoundError" else _hub_error(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    message = refusal("a/b")
    assert message.startswith("a/b: ") and part in message


def test_without_transformers_the_line_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "transformers is not installed; pip install 'rrt[backbones]'" in refusal(model)


def test_sharded_weights_are_one_model(saved, tmp_path):
    import transformers

    transformers.AutoModel.from_pretrained(saved).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shutil.copy(saved / "preprocessor_config.json", tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    whole, shards = (open_describer(f"transformers:{path}", image_size=56) for path in (saved, tmp_path / "shards"))
    assert whole.local_dim == shards.local_dim and whole.sha256 != shards.sha256


def test_the_shipped_model_needs_neither_torch_nor_transformers():
    program = (
        "import sys; from rrt.extraction import open_describer; open_describer('lite0', threads=1);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
