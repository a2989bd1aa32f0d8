"""What the command tools/encode_store.py does."""

from pathlib import Path

from rrt.devices import choose_device
from rrt.errors import InputError
from rrt.network.encoded_store import encode_store
from rrt.network.late_scorer import LateScorer
from rrt.network.precision import ScoringPrecision
from rrt.network.reranker import Reranker
from rrt.store.store import Store


def encode_file(
    store, checkpoint, out, precision: ScoringPrecision = "float32", overwrite=False, cpu=False, keep: int | None = None
) -> tuple[Path, int, float, float]:
    """Encode the store at a path by the checkpoint of a LATE -> (``out``, images, vectors and bytes an image). Raises
    InputError."""
    with Store(store) as opened:
        scorer = open_late_scorer(checkpoint, opened, precision, "cpu" if cpu else None)
        path = encode_store(scorer, out, overwrite, keep)
    written = Store(path)
    return path, len(written), float(written.local_counts().mean()), path.stat().st_size / len(written)


def open_late_scorer(
    checkpoint, store: Store, precision: ScoringPrecision = "float32", device: str | None = None
) -> LateScorer:
    """The scorer for a store of a checkpoint, which must be of a LATE; device: None = a GPU if there is one. Raises
    InputError."""
    scorer = Reranker.from_checkpoint(checkpoint, choose_device(device), precision=precision).scorer(store)
    if not isinstance(scorer, LateScorer):
        raise InputError(f"{checkpoint}: holds a network of model.RRT, which encodes no image alone; give a model.LATE")
    return scorer
