"""Settings of the commands that measure, and what they open by them."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from rrt.command_line.settings import Expected, FilePath, setting, settings
from rrt.datasets.settings import DatasetSettings
from rrt.network.settings import ModelSettings, ScoringPrecision

if TYPE_CHECKING:
    from rrt.network.reranker import Reranker
    from rrt.rerankers.fusion import Fusion
    from rrt.search.whitening import Whitening

# What they open is imported when it is opened: help is printed without PyTorch.


@settings()
class ScoredSettings:
    """Of every command that may score by a transformer. rerankers: {method: {setting: value}}."""

    dataset: DatasetSettings = DatasetSettings()
    model: ModelSettings = ModelSettings()
    rerankers: dict[str, dict[str, Any]] | None = None
    resume: FilePath | None = setting(
        "checkpoint of rrt; without it and without reranker= global search is measured alone", default=None
    )
    scale_binning: Literal["published", "exact"] | None = setting(
        "published | exact; None: as the checkpoint was trained", default=None
    )
    whitening: FilePath | None = setting(
        "an .npz of tools/learn_whitening.py for global similarities (of fusion and of distractors)", default=None
    )
    precision: ScoringPrecision = setting(
        "float32 (exact) | bfloat16 | float16 | int8 (processors) | auto, which takes bfloat16 where that is fast",
        default="float32",
    )
    compile: bool = setting(
        "torch.compile in the reranker: takes a minute, pays for many queries on a GPU", default=False
    )
    memory_mb: int | None = setting(
        "MiB the scorer may use; None: half of what is free on a GPU, else at most 4096", default=None, ge=1
    )
    encoded: FilePath | None = setting(
        "a store of tools/encode_store.py: the images as a model.LATE compares them", default=None
    )
    cpu: bool = setting("do not use a GPU", default=False)

    def open_reranker(self) -> "Reranker":
        """The transformer of the checkpoint ``resume``. Raises InputError."""
        from rrt.devices import choose_device
        from rrt.network.reranker import Reranker

        max_local = self.dataset.max_sequence_len
        return Reranker.from_checkpoint(
            self.resume,
            choose_device("cpu" if self.cpu else None),
            None if isinstance(max_local, str) else max_local,
            self.scale_binning,
            self.model.architecture,
            self.precision,
            self.compile,
            self.memory_mb,
            all_local=max_local == "all",
            encoded=self.encoded,
        )

    def max_local(self) -> int | None:
        """Local descriptors used of an image: as ``dataset`` says, else as the checkpoint was trained with. Raises
        InputError."""
        if self.resume and self.dataset.max_sequence_len is None:
            return self.open_reranker().max_local
        return self.dataset.max_local

    def open_whitening(self) -> "Whitening | None":
        """Raises InputError."""
        from rrt.search.whitening import load_whitening

        return load_whitening(self.whitening) if self.whitening else None


@settings()
class FusedSettings(ScoredSettings):
    """Of those that blend the transformer's scores with the similarities of the search."""

    weight: float = setting(
        "share of the global similarity in the score, 0..1; 0 ranks by the reranker alone",
        name="lambda",
        default=0.0,
        ge=0,
        le=1,
    )
    temperature: float = setting(
        "of the blend lambda * similarity + (1 - lambda) * sigmoid(temperature * logit)", default=1.0, gt=0
    )
    fusion: FilePath | None = setting(
        "a fusion.json of tools/tune_fusion.py instead of lambda and temperature", default=None
    )

    ray_address: str | None = setting(
        "score on a Ray cluster, queries in blocks: its address, auto for the one of this machine, local to start one",
        default=None,
    )

    def open_fusion(self) -> "Fusion":
        """Raises InputError."""
        from rrt.rerankers.fusion import read_fusion

        return read_fusion(self.fusion, self.weight, self.temperature)


_Method = Annotated[str, Expected("the name of a method, as geometric, or a chain of them, as a+b")]


@settings()
class EvaluationSettings(FusedSettings):
    """Of evaluate_revisited.py."""

    temp_dir: FilePath = setting(
        "folder for results.json, queries.csv, rankings.npz and the record of the run", default="logs/evaluate"
    )
    reranker: _Method | None = setting(
        "a method of rrt.rerankers or a chain of them, as superglobal+geometric; None: rrt, with resume", default=None
    )
    num_rerank: int | None = setting(
        "candidates of a query that are reranked; None: the method's own number; too many mean all", default=None, ge=1
    )
    distractors: FilePath | None = setting(
        "a store whose images all join the gallery as wrong ones, for example R1M's", default=None
    )
    baselines: bool = setting(
        "measure plain matching, geometry and the transformer, too, with as many local descriptors and candidates, and"
        " say by how much the reranker is better than each",
        default=False,
    )
    trec: bool = setting("write rankings and ground truth as TREC files, too, into temp_dir/trec", default=False)
