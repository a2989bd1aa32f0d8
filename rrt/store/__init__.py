"""The descriptor store: one HDF5 file for each data set, and the records that go in and come out.

Importing this package loads nothing: each name below is loaded from its module when it is first used.
"""

from importlib import import_module

_MODULE_OF = {
    "ImageRecord": "records",
    "PartWriter": "writer",
    "Skipped": "records",
    "Store": "store",
    "StoredImage": "records",
    "write_store": "writer",
}
__all__ = list(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rrt.store' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"rrt.store.{_MODULE_OF[name]}"), name)
    return found
