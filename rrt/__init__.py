"""Reranking of image-search results with a transformer over frozen global and local descriptors.

Importing this package loads neither torch nor faiss: each name below is loaded from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rrt.version import __version__ as __version__

if TYPE_CHECKING:
    from rrt.errors import InputError as InputError
    from rrt.network.model import RRT as RRT
    from rrt.network.precision import ScoringSettings as ScoringSettings
    from rrt.network.reranker import Reranked as Reranked
    from rrt.network.reranker import Reranker as Reranker
    from rrt.network.scorer import Scorer as Scorer
    from rrt.rerankers.fusion import Fusion as Fusion
    from rrt.retriever import Retrieved as Retrieved
    from rrt.retriever import Retriever as Retriever
    from rrt.store.memory import MemoryStore as MemoryStore
    from rrt.store.records import ImageRecord as ImageRecord
    from rrt.store.records import StoredImage as StoredImage
    from rrt.store.store import Store as Store

_MODULE_OF = {
    "Fusion": "rerankers.fusion",
    "ImageRecord": "store.records",
    "InputError": "errors",
    "MemoryStore": "store.memory",
    "RRT": "network.model",
    "Reranked": "network.reranker",
    "Reranker": "network.reranker",
    "Retrieved": "retriever",
    "Retriever": "retriever",
    "Scorer": "network.scorer",
    "ScoringSettings": "network.precision",
    "Store": "store.store",
    "StoredImage": "store.records",
}
__all__ = list(_MODULE_OF) + ["__version__"]


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rrt' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"rrt.{_MODULE_OF[name]}"), name)
    return found


def __dir__():
    return sorted({*globals(), *__all__})
