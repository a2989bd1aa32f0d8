"""Methods by name, and as a command's settings ask for them (rrt/rerankers/build.py)."""

import subprocess
import sys

import pytest
from reranking import NETWORK

from rrt.errors import InputError
from rrt.network.model import RRT
from rrt.network.reranker import Reranker
from rrt.rerankers.build import METHODS, all_default_settings, configure, default_settings, make_chain, make_method
from rrt.rerankers.fusion import Fusion
from rrt.rerankers.transformer import Transformer


def test_every_method_is_there_by_name_and_refuses_unknown_settings():
    for name in METHODS:
        known = default_settings(name)
        with pytest.raises(InputError, match="has no setting 'nonsense'"):
            make_method(name, {**known, "nonsense": 1})
    with pytest.raises(InputError, match="'nosuch': no such method; there are rrt, maxsim, late, geometric"):
        make_method("nosuch")
    assert make_chain("aqe", {"aqe": {"k": 3}}) == make_method("aqe", {"k": 3})
    assert [type(each).__name__ for each in make_chain("superglobal+aqe").methods] == [
        "SuperGlobal",
        "AverageQueryExpansion",
    ]


def test_settings_say_which_methods_and_how_many_candidates():
    assert configure(None, {}) is None
    rrt = configure(None, {}, "x.pt")
    assert rrt.label == "RRT" and rrt.depths == [100] and rrt.settings == {}
    chain = configure("superglobal+rrt", {"superglobal": {"k": 4}}, "x.pt", 7)
    assert chain.label == "superglobal+rrt" and chain.depths == [400, 7] and chain.settings["superglobal"]["k"] == 4
    assert chain.listed_among_distractors() == 400
    assert configure("aqe", {}).depths == [None]
    assert configure("geometric", all_default_settings()).settings["geometric"]["device"] is None
    assert configure("geometric", all_default_settings(), cpu=True).settings["geometric"]["device"] == "cpu"


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("rrt", {}, "give the checkpoint of rrt as resume=FILE"),
        ("superglobal+rrt", {}, "give the checkpoint of rrt as resume=FILE"),
        (["aqe"], {}, "expected the name of a method"),
        ("aqe+", {}, "'': no such method"),
        ("aqe", {"aqe": {"k": 0}}, "k=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, message):
    with pytest.raises(InputError, match=message):
        configure(name, settings)


def test_methods_of_whole_rankings_are_refused_among_distractors():
    with pytest.raises(InputError, match="reranker aqe reorders whole rankings"):
        configure("aqe", {}).listed_among_distractors()
    assert configure("aqe", {}, num_rerank=9).listed_among_distractors() == 9


def test_the_transformer_takes_its_place_in_the_chain():
    transformer = Transformer(Reranker(RRT(**NETWORK), device="cpu"), Fusion(0.5))
    assert configure("rrt", {}, "x.pt").method(transformer) is transformer
    chain = configure("aqe+rrt+superglobal", {}, "x.pt").method(transformer)
    assert [type(each).__name__ for each in chain.methods] == ["AverageQueryExpansion", "Transformer", "SuperGlobal"]
    assert chain.methods[1] is transformer
    with pytest.raises(InputError, match="'rrt' needs a network"):
        make_chain("aqe+rrt")


def test_naming_the_methods_loads_no_network():
    code = "import sys, rrt.rerankers; assert 'torch' not in sys.modules and 'faiss' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
