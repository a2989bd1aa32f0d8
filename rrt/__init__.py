"""Reranking of image-search results with a transformer over frozen global and local descriptors.

Importing this package loads neither torch nor faiss: each name below is loaded from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrt.errors import InputError as InputError
    from rrt.evaluation import Fusion as Fusion
    from rrt.memory_store import MemoryStore as MemoryStore
    from rrt.model import RRT as RRT
    from rrt.reranker import Reranked as Reranked
    from rrt.reranker import Reranker as Reranker
    from rrt.retriever import Retrieved as Retrieved
    from rrt.retriever import Retriever as Retriever
    from rrt.scorer import Scorer as Scorer
    from rrt.scoring_settings import ScoringSettings as ScoringSettings
    from rrt.store import Store as Store
    from rrt.store_records import ImageRecord as ImageRecord
    from rrt.store_records import StoredImage as StoredImage

__version__ = "0.1.0"

_MODULE_OF = {
    "Fusion": "evaluation",
    "ImageRecord": "store_records",
    "InputError": "errors",
    "MemoryStore": "memory_store",
    "RRT": "model",
    "Reranked": "reranker",
    "Reranker": "reranker",
    "Retrieved": "retriever",
    "Retriever": "retriever",
    "Scorer": "scorer",
    "ScoringSettings": "scoring_settings",
    "Store": "store",
    "StoredImage": "store_records",
}
__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rrt' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"rrt.{_MODULE_OF[name]}"), name)
    return found


def __dir__():
    return sorted({*globals(), *__all__})
