"""Reranking methods by name, all behind one interface (rrt/rerankers/base.py), alone or in chains:

    method = make_chain("superglobal+geometric", {"geometric": {"geometry": "homography"}})
    lists = reorder(space, method, shortlists)

Everything here is made by rrt/rerankers/build.py.
"""

from rrt.rerankers.build import METHODS as METHODS
from rrt.rerankers.build import default_settings as default_settings
from rrt.rerankers.build import make_chain as make_chain
from rrt.rerankers.build import make_method as make_method
from rrt.rerankers.chain import reorder as reorder
