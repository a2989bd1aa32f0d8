"""The descriptor store: one HDF5 file for each data set, and the records that go in and come out.

Importing this package loads nothing: each name below is loaded from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrt.store.records import ImageRecord as ImageRecord
    from rrt.store.records import Skipped as Skipped
    from rrt.store.records import StoredImage as StoredImage
    from rrt.store.store import Store as Store
    from rrt.store.writer import PartWriter as PartWriter
    from rrt.store.writer import write_store as write_store

_MODULE_OF = {
    "ImageRecord": "records",
    "PartWriter": "writer",
    "Skipped": "records",
    "Store": "store",
    "StoredImage": "records",
    "write_store": "writer",
}


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rrt.store' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"rrt.store.{_MODULE_OF[name]}"), name)
    return found
