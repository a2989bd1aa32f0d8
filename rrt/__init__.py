"""Reranking of image-search results with a transformer over frozen global and local descriptors.

Importing this package loads neither torch nor faiss: import the module that is needed (`rrt.store`, `rrt.model`, ...).
"""

__version__ = "0.1.0"
