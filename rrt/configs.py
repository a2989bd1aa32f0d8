"""The named configurations of the command lines, as data (docs/protocol.md 4): ``dataset.<name>`` and ``model.<name>``.

``with dataset.gldv2_roxford_r50_gldv2 model.RRT`` picks a row of each table; every entry can be overridden after it,
for example ``dataset.max_sequence_len=200``.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from rrt.command_line.sacred import Command, Ingredient
from rrt.command_line.settings import described
from rrt.datasets.settings import AUTO, DatasetSettings
from rrt.network.settings import ModelSettings
from rrt.rerankers.build import METHODS, all_default_settings

Kind = TypeVar("Kind")

# Settings that command lines of the published program may give: accepted, recorded, and used by nothing.
# {part of the configuration, "" for the command's own: {setting: (default, meaning)}}
UNUSED: dict[str, dict[str, tuple[Any, str]]] = {
    "": {
        "visdom_port": (None, "accepted and unused: scalars go to Sacred's observers"),
        "visdom_freq": (100, "accepted and unused"),
        "seed": (0, "unused by the evaluation, whose intervals have their own; Sacred records it"),
    },
    "dataset": {"test_batch_size": (36, "accepted and unused: the scorer finds its own")},
    "model": {"dim_K": (256, "accepted and unused")},
}


def make_command(
    module: dict[str, Any],
    name: str,
    kind: type,
    unused: Sequence[str] = ("seed",),
    methods: bool = True,
    uses: Sequence[str] = (),
) -> Command:
    """A command with a data set, a network and the settings of a kind. module, uses: as ``Command`` has them; unused:
    those of its own in UNUSED; methods: whether it takes the settings of the reranking methods but ``rrt``, whose
    settings are those of the command."""
    parts = [_ingredient("dataset", DatasetSettings, dataset_configs())]
    parts.append(_ingredient("model", ModelSettings, MODEL_CONFIGS))
    command = Command(name, parts, module, uses)
    command.add_settings(described(kind) | {each: UNUSED[""][each] for each in unused})
    if methods:
        command.add_config(all_default_settings)
    return command


def read_settings(kind: type[Kind], config: Mapping[str, Any]) -> Kind:
    """The settings of a command, checked, from its Sacred configuration: the one place where that is done.

    Unused settings are left out; those of reranking methods, {method: {setting: value}}, become ``rerankers`` where the
    kind has it. Raises InputError.
    """
    given = deepcopy(dict(config))  # Sacred's is read-only
    known = kind.__dataclass_fields__  # pyright: ignore[reportAttributeAccessIssue]
    for part, names in UNUSED.items():
        entries = given.get(part) if part else given
        if isinstance(entries, dict):
            for name in names.keys() & entries.keys() - (set() if part else known.keys()):
                del entries[name]
    if "rerankers" in known:
        given["rerankers"] = {name: given.pop(name) for name in METHODS if name in given}
    return kind(**given)


_TEST_FOLDERS = {
    "roxford": {"test_data_dir": "data/oxford5k", "test_gnd_file": "gnd_roxford5k.pkl"},
    "rparis": {"test_data_dir": "data/paris6k", "test_gnd_file": "gnd_rparis6k.pkl"},
}
_DESCRIPTORS = ("r50_gldv1", "r50_gldv2", "r101_gldv1", "r101_gldv2")


def dataset_configs() -> dict[str, dict]:
    """{name of the configuration: its entries}"""
    configs = {}
    for descriptors in _DESCRIPTORS:
        for test, folder in _TEST_FOLDERS.items():
            name = f"{test}_{descriptors}"
            configs[name] = {"name": name, "desc_name": descriptors, **folder}
        name = f"gldv2_roxford_{descriptors}"
        training = {
            "train_data_dir": "data/gldv2",
            "train_txt": "train.txt",
            "val_data_dir": AUTO,
            "sampler": "triplet",
        }
        configs[name] = {"name": name, "desc_name": descriptors, **training, **_TEST_FOLDERS["roxford"]}
    for name, descriptors in (("scenes", "lite0"), ("landmarks", "lite0")):
        configs[name] = {"name": name, "desc_name": descriptors, "sampler": "triplet"}
        for part in ("train", "val", "test"):
            configs[name][f"{part}_data_dir"] = f"data/{name}_{part}"
        for part in ("val", "test"):
            configs[name][f"{part}_gnd_file"] = f"gnd_{name}_{part}.pkl"
    return configs


_RRT = {name: default for name, (default, _) in described(ModelSettings).items()}
MODEL_CONFIGS = {
    "RRT": _RRT,
    "LATE": _RRT | {"kind": "LATE", "name": "late", "dim_feedforward": 256, "num_encoder_layers": 2},
}


def _ingredient(name: str, kind: type, configs: dict[str, dict]) -> Ingredient:
    ingredient = Ingredient(name)
    ingredient.add_settings(described(kind) | UNUSED[name])
    for config_name, entries in configs.items():
        ingredient.add_named_config(config_name, entries)
    return ingredient
