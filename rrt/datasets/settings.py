"""Which folders, files and batches a command works on: the ``dataset`` of the command lines."""

from typing import Annotated, Literal

from pydantic import Field

from rrt.command_line.settings import Expected, FilePath, setting, settings
from rrt.datasets.sets import TEST_LISTS

# The value of ``val_data_dir`` that stands for the folders of tools/train_val_split.py.
AUTO = "auto"
# Local descriptors of an image that the published program reads.
PUBLISHED_LOCAL = 500
_Local = Annotated[
    Annotated[int, Field(ge=0)] | Literal["all"] | None, Expected("an integer of at least 0, 'all' or None")
]
_TestLists = Annotated[
    list[str], Field(min_length=2, max_length=2), Expected(f"the lists of queries and gallery, {list(TEST_LISTS)}")
]
_CutOffs = Annotated[list[Annotated[int, Field(ge=1)]], Expected("a list of integers of at least 1, as [1, 5, 10]")]


@settings("dataset.")
class DatasetSettings:
    """What ``rrt.configs`` names, and ``with dataset.NAME=VALUE`` changes."""

    name: str | None = setting("for the records alone", default=None)
    desc_name: str | None = setting(
        "names the descriptor stores delg_<desc_name>.h5 and neighbours nn_inds_<desc_name>.pkl", default=None
    )
    train_data_dir: FilePath | None = setting("folder of train_txt, its store and its neighbours", default=None)
    test_data_dir: FilePath | None = setting(
        "folder of test_txt, the ground truth, the store and the neighbours", default=None
    )
    val_data_dir: FilePath | None = setting(
        "the same of held-out training landmarks, on which the best epoch is chosen; auto: <train_data_dir>_val and, to"
        " train on, <train_data_dir>_train of tools/train_val_split.py where they are there",
        default=None,
    )
    train_txt: str = setting("training list, in train_data_dir", default="train.txt")
    test_txt: _TestLists = setting(
        "lists of queries and gallery, in test_data_dir and in val_data_dir", default=list(TEST_LISTS)
    )
    test_gnd_file: str | None = setting("ground truth (.pkl, .json, .mat), in test_data_dir", default=None)
    val_gnd_file: str | None = setting(
        "ground truth in val_data_dir; for auto by default gnd_<folder>.pkl", default=None
    )
    batch_size: int = setting("images of a training batch; a triplet is three", default=36, ge=1)
    max_sequence_len: _Local = setting(
        "local descriptors used of an image, the first in stored order; None: as many as the checkpoint was trained"
        f" with, {PUBLISHED_LOCAL} where none says it; all: all",
        default=None,
    )
    sampler: str = setting("random | triplet", default="random")
    num_workers: int = setting(
        "processes that read batches for a GPU, at most its share of the cores; a processor reads in a thread",
        default=8,
        ge=0,
    )
    pin_memory: bool = setting("batches for a GPU lie in memory from which it copies while it computes", default=True)
    recalls: _CutOffs = setting("cut-offs k of mP@k and mR@k", default=[1, 5, 10])
    num_candidates: int = setting("neighbours of an anchor that triplets are drawn from", default=100, ge=1)

    @property
    def max_local(self) -> int | None:
        """``max_sequence_len`` where no checkpoint says it; None: all."""
        if isinstance(self.max_sequence_len, str):
            return None
        return PUBLISHED_LOCAL if self.max_sequence_len is None else self.max_sequence_len
