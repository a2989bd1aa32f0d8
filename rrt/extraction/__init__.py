"""Images to descriptors without TensorFlow: the shipped `lite0`, ONNX files, models of transformers, any function.

Importing this package loads nothing: each name below is loaded from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrt.extraction.callable import CallableDescriber as CallableDescriber
    from rrt.extraction.callable import extract_lists as extract_lists
    from rrt.extraction.describer import open_describer as open_describer

_MODULE_OF = {"CallableDescriber": "callable", "extract_lists": "callable", "open_describer": "describer"}


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rrt.extraction' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"rrt.extraction.{_MODULE_OF[name]}"), name)
    return found
