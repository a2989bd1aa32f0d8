"""Reranking of image-search results with a transformer over frozen global and local descriptors.

Importing this package loads neither torch nor faiss: each name below is loaded from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rrt.version import __version__ as __version__

if TYPE_CHECKING:
    from rrt.errors import InputError as InputError
    from rrt.evaluation.by_name import evaluate as evaluate
    from rrt.extraction.images import describe as describe
    from rrt.image_match import Match as Match
    from rrt.image_match import match as match
    from rrt.network.late import LATE as LATE
    from rrt.network.model import RRT as RRT
    from rrt.network.precision import ScoringSettings as ScoringSettings
    from rrt.network.reranker import Reranked as Reranked
    from rrt.network.scorer import Scorer as Scorer
    from rrt.photo_index.python import PhotoIndex as PhotoIndex
    from rrt.pretrained import Reranker as Reranker
    from rrt.pretrained import list_models as list_models
    from rrt.rerankers.base import Ranked as Ranked
    from rrt.rerankers.fusion import Fusion as Fusion
    from rrt.retriever import Retrieved as Retrieved
    from rrt.retriever import Retriever as Retriever
    from rrt.search.whitening import Whitening as Whitening
    from rrt.store.memory import MemoryStore as MemoryStore
    from rrt.store.records import ImageRecord as ImageRecord
    from rrt.store.records import StoredImage as StoredImage
    from rrt.store.store import Store as Store

_MODULE_OF = {
    "Fusion": "rerankers.fusion",
    "ImageRecord": "store.records",
    "InputError": "errors",
    "LATE": "network.late",
    "Match": "image_match",
    "MemoryStore": "store.memory",
    "PhotoIndex": "photo_index.python",
    "RRT": "network.model",
    "Ranked": "rerankers.base",
    "Reranked": "network.reranker",
    "Reranker": "pretrained",
    "Retrieved": "retriever",
    "Retriever": "retriever",
    "Scorer": "network.scorer",
    "ScoringSettings": "network.precision",
    "Store": "store.store",
    "StoredImage": "store.records",
    "Whitening": "search.whitening",
    "describe": "extraction.images",
    "evaluate": "evaluation.by_name",
    "list_models": "pretrained",
    "match": "image_match",
}
__all__ = list(_MODULE_OF) + ["__version__"]


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rrt' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"rrt.{_MODULE_OF[name]}"), name)
    return found


def __dir__():
    return sorted({*globals(), *__all__})
