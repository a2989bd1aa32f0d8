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
    store, checkpoint, out, precision: ScoringPrecision = "float32", overwrite=False, cpu=False
) -> tuple[Path, int, float, float]:
    """Encode the store at a path by the checkpoint of a LATE -> (``out``, images, vectors and bytes an image). Raises
    InputError."""
    reranker = Reranker.from_checkpoint(checkpoint, choose_device("cpu" if cpu else None), precision=precision)
    with Store(store) as opened:
        scorer = reranker.scorer(opened)
        if not isinstance(scorer, LateScorer):
            raise InputError(
                f"{checkpoint}: holds a network of model.RRT, which encodes no image alone; give a model.LATE"
            )
        path = encode_store(scorer, out, overwrite)
    written = Store(path)
    return path, len(written), float(written.local_counts().mean()), path.stat().st_size / len(written)
