"""The named configurations of the command lines, as data (docs/protocol.md 4): ``dataset.<name>`` and ``model.<name>``.

``with dataset.gldv2_roxford_r50_gldv2 model.RRT`` picks a row of each table; every entry can be overridden after it,
for example ``dataset.max_sequence_len=200``.
"""

from rrt.command_line.sacred import Ingredient, add_settings
from rrt.datasets.configured import AUTO
from rrt.datasets.sets import TEST_LISTS
from rrt.network.model import DEFAULT_SETTINGS

DATASET_DEFAULTS = {
    "name": None,
    "desc_name": None,
    "train_data_dir": None,
    "test_data_dir": None,
    "val_data_dir": None,
    "train_txt": "train.txt",
    "test_txt": list(TEST_LISTS),
    "test_gnd_file": None,
    "val_gnd_file": None,
    "batch_size": 36,
    "test_batch_size": 36,
    "max_sequence_len": 500,
    "sampler": "random",
    "num_workers": 8,
    "pin_memory": True,
    "recalls": [1, 5, 10],
    "num_candidates": 100,
}

DATASET_MEANINGS = {
    "name": "for the records alone",
    "desc_name": "names the descriptor stores delg_<desc_name>.h5 and neighbours nn_inds_<desc_name>.pkl",
    "train_data_dir": "folder of train_txt, its store and its neighbours",
    "test_data_dir": "folder of test_txt, the ground truth, the store and the neighbours",
    "val_data_dir": "the same of held-out training landmarks, on which the best epoch is chosen; auto: <train_data_dir>_val"
    " and, to train on, <train_data_dir>_train of tools/train_val_split.py where they are there",
    "train_txt": "training list, in train_data_dir",
    "test_txt": "lists of queries and gallery, in test_data_dir and in val_data_dir",
    "test_gnd_file": "ground truth (.pkl, .json, .mat), in test_data_dir",
    "val_gnd_file": "ground truth in val_data_dir; for auto by default gnd_<folder>.pkl",
    "batch_size": "images of a training batch; a triplet is three",
    "test_batch_size": "accepted and unused: the scorer finds its own",
    "max_sequence_len": "local descriptors used of an image, the first in stored order",
    "sampler": "random | triplet",
    "num_workers": (
        "processes that read batches for a GPU, at most its share of the cores; a processor reads in a thread"
    ),
    "pin_memory": "batches for a GPU lie in memory from which it copies while it computes",
    "recalls": "cut-offs k of mP@k and mR@k",
    "num_candidates": "neighbours of an anchor that triplets are drawn from",
}

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
    for name, descriptors in (("scenes", "small"), ("landmarks", "r50")):
        configs[name] = {"name": name, "desc_name": descriptors, "sampler": "triplet"}
        for part in ("train", "val", "test"):
            configs[name][f"{part}_data_dir"] = f"data/{name}_{part}"
        for part in ("val", "test"):
            configs[name][f"{part}_gnd_file"] = f"gnd_{name}_{part}.pkl"
    return configs


MODEL_DEFAULTS = {"name": "rrt", "dim_K": 256, "initialisation": "published"} | DEFAULT_SETTINGS
MODEL_MEANINGS = {"dim_K": "unused; published command lines may set it"}
MODEL_CONFIGS = {"RRT": dict(MODEL_DEFAULTS)}


def make_ingredient(name: str, defaults: dict, meanings: dict, configs: dict[str, dict]) -> Ingredient:
    """A Sacred ingredient with these defaults, what print_config says of them, and named configurations."""
    ingredient = Ingredient(name, save_git_info=False)
    add_settings(ingredient, defaults, meanings)
    for config_name, entries in configs.items():
        ingredient.add_named_config(config_name, entries)
    return ingredient


def dataset_ingredient() -> Ingredient:
    return make_ingredient("dataset", DATASET_DEFAULTS, DATASET_MEANINGS, dataset_configs())


def model_ingredient() -> Ingredient:
    return make_ingredient("model", MODEL_DEFAULTS, MODEL_MEANINGS, MODEL_CONFIGS)
