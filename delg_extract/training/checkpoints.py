"""What a training leaves, as a network: its weight file, or a checkpoint of a run that has not ended (or was killed).

A log folder of delg_extract/train.py holds ``weights.h5`` at the end, ``settings.json`` with the flags, and
``checkpoints/`` with tf.train checkpoints of {variables by name, step, momenta}. They are read by key: no optimizer and
no trainer is built for it.
"""

from __future__ import annotations

from pathlib import Path

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf, without_warnings
from delg_extract.network.weight_file import read_settings
from delg_extract.network.weights import fill_network, load_weights, restore_weights
from delg_extract.training.losses import CLASSIFIERS
from rrt.errors import InputError
from rrt.files.atomic import read_json

WEIGHT_FILE, SETTINGS_FILE, CHECKPOINTS = "weights.h5", "settings.json", "checkpoints"
_PREFIX, _SUFFIX = "variables/", "/.ATTRIBUTES/VARIABLE_VALUE"


def load_trained(path: str | Path, **override) -> tuple[Delg, dict, Path]:
    """(network without classifiers, settings of the weight file or flags of the training, the file they came from).

    ``path``: a weight file, a log folder (its weight file, or else its latest checkpoint), its folder of checkpoints,
    or one checkpoint (the name without .index). ``override``: settings that have no variables (``block3_strides``).
    Raises InputError when there is none, when it is damaged, and when it does not hold exactly the variables of its
    network.
    """
    source = _source(Path(path))
    if source.is_file() and not _index(source).is_file():
        return load_weights(source, **override), read_settings(source), source
    return load_checkpoint_weights(source, **override), _flags(source), source


def _source(path: Path) -> Path:
    if (path / WEIGHT_FILE).is_file():
        return path / WEIGHT_FILE
    if path.is_dir():
        return _latest_checkpoint(path)
    if not path.is_file() and not _index(path).is_file():
        raise InputError(
            f"{path}: no such weight file, log folder or checkpoint; give what delg_extract/train.py wrote"
        )
    return path


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def network_settings(flags: dict) -> dict:
    """The settings of ``Delg`` that flags of the training (by name) mean."""
    return {
        "backbone": flags["backbone"],
        "local_dim": int(flags["autoencoder_dimensions"]) if flags["use_autoencoder"] else None,
        "embedding_dim": flags["delg_embedding_layer_dim"],
        "gem_power": flags["delg_gem_power"],
        "block3_strides": flags["block3_strides"],
        "use_global": flags["delg_global_features"],
    }


def load_checkpoint_weights(prefix: str | Path, **override) -> Delg:
    """The network of one checkpoint below a log folder, see ``load_trained``; the classifiers are left out."""
    prefix = Path(prefix)
    flags = _flags(prefix)
    try:
        model = Delg(**{**network_settings(flags), **override}, seed=None)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{_settings_path(prefix)}: does not describe a network ({error!r}); give the log folder of "
            "delg_extract/train.py"
        ) from None
    restore_checkpoint(prefix, model)
    return model


def restore_trained(path: str | Path, model: Delg, partial: bool = False) -> list[str]:
    """Fills ``model`` from what ``load_trained`` takes, as ``restore_weights``; returns the names left as
    initialised."""
    source = _source(Path(path))
    return (restore_checkpoint if _index(source).is_file() else restore_weights)(source, model, partial)


def restore_checkpoint(prefix: Path, model: Delg, partial: bool = False) -> list[str]:
    """Fills ``model``, which has no classifiers, from a checkpoint, as ``restore_weights`` does from a weight file."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {
            _name(key): tuple(shape)
            for key, shape in reader.get_variable_to_shape_map().items()
            if key.startswith(_PREFIX) and key.endswith(_SUFFIX)
        }
        shapes = {name: shape for name, shape in shapes.items() if name.split("/")[0] not in CLASSIFIERS}
        return fill_network(model, prefix, shapes, lambda name: reader.get_tensor(_key(name)), partial)
    except InputError:
        raise
    # The reader's complaint about a damaged file is an OpError, an IndexError or a ValueError.
    except Exception as error:
        raise InputError(
            f"{prefix}: a damaged checkpoint ({str(error).strip().splitlines()[0][:200]}); give an earlier one"
        ) from None


def _latest_checkpoint(folder: Path) -> Path:
    for candidate in (folder / CHECKPOINTS, folder):
        with without_warnings():
            state = tf.train.get_checkpoint_state(str(candidate))
        if state:
            return Path(state.model_checkpoint_path)
    raise InputError(
        f"{folder}: neither {WEIGHT_FILE} nor {CHECKPOINTS}/ with a checkpoint in it; give the --logdir of "
        "delg_extract/train.py, or a weight file"
    )


def _settings_path(prefix: Path) -> Path:
    return prefix.parent.parent / SETTINGS_FILE


def _flags(prefix: Path) -> dict:
    flags = read_json(_settings_path(prefix))
    if not isinstance(flags, dict):
        raise InputError(
            f"{_settings_path(prefix)}: no settings of the training that wrote {prefix.name}; keep checkpoints in "
            "their log folder, or give a weight file"
        )
    return flags


def _key(name: str) -> str:
    # Keys of a dictionary may hold slashes, which TensorFlow writes so.
    return f"{_PREFIX}{name.replace('/', '.S')}{_SUFFIX}"


def _name(key: str) -> str:
    return key.removeprefix(_PREFIX).removesuffix(_SUFFIX).replace(".S", "/")
