"""Methods by name, and as a command's settings ask for them (rrt/rerankers/build.py)."""

import re
import subprocess
import sys

import pytest
from reranking import NETWORK

from rrt.errors import InputError
from rrt.network.model import RRT
from rrt.network.reranker import Reranker
from rrt.rerankers.build import (
    METHODS,
    all_default_settings,
    configure,
    default_settings,
    identity_of,
    make_chain,
    make_method,
)
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


def test_members_of_a_chain_have_settings_and_numbers_of_their_own():
    chain = configure(
        "maxsim[num=400, local=7]+geometric[num=50,mode='mutual',max_distance=None]", {"maxsim": {"weight": 0.5}}
    )
    assert chain.names == ("maxsim", "geometric") and chain.depths == [400, 50]
    first, second = chain.method().methods
    assert (first.query_local, first.gallery_local, first.weight) == (7, 7, 0.5)
    assert (second.mode, second.max_distance) == ("mutual", None) and chain.method().depths == (400, 50)
    assert list(chain.settings) == ["maxsim[num=400, local=7]", "geometric[num=50,mode='mutual',max_distance=None]"]
    assert chain.label == "+".join(chain.settings) and chain.listed_among_distractors() == 400
    assert make_chain("maxsim[num=9]").stages[0][1] == 9
    # What stands in brackets replaces what is set for all members of a name.
    twice = configure("maxsim+maxsim[weight=0.1,query_local=3,local=8]", {"maxsim": {"weight": 0.9}}).method()
    assert [each.weight for each in twice.methods] == [0.9, 0.1]
    assert (twice.methods[1].query_local, twice.methods[1].gallery_local) == (3, 8)
    assert configure("maxsim+geometric[num=5]", {}, num_rerank=5).depths == [100, 5]
    assert make_chain("late[local=7]").local == 7


def test_a_cascade_of_the_transformer_reads_as_many_descriptors_as_each_member_says():
    transformer = Transformer(Reranker(RRT(**NETWORK), device="cpu"), Fusion(0.5))
    text = "rrt[local=50,num=400,weight=0]+rrt[query_local=500,gallery_local=30,num=50]"
    first, second = configure(text, {}, "x.pt").method(transformer).methods
    assert (first.query_local, first.gallery_local, first.fusion) == (50, 50, Fusion(0.0))
    assert (second.query_local, second.gallery_local, second.fusion) == (500, 30, Fusion(0.5))
    assert identity_of(second)[0]["gallery_local"] == 30 and identity_of(transformer)[0]["gallery_local"] == 500


@pytest.mark.parametrize(
    "text, message",
    [
        ("maxsim[num=0]", "'maxsim[num=0]': num=0"),
        ("maxsim[num=many]", "num='many'"),
        ("maxsim[num=True]", "num=True"),
        ("maxsim[weight]", "'weight' in the brackets: expected setting=value"),
        ("maxsim[weight=]", "expected setting=value"),
        ("maxsim[weight=0,weight=1]", "weight is set twice"),
        ("maxsim[weight=0", "a ] is missing"),
        ("maxsim]", "a ']' that nothing opens"),
        ("maxsim[weight=0]x", "expected NAME"),
        ("maxsim[a='b]", "a ' is missing"),
        ("geometric+maxsim[weight=5]", "'maxsim[weight=5]': setting maxsim.weight=5"),
        ("maxsim[color=1]", "'maxsim[color=1]': reranker 'maxsim' has no setting 'color'"),
        ("geometric[mode=three_way]", "'geometric[mode=three_way]': reranker 'geometric': setting mode='three_way'"),
        ("alpha_qe[local=5]", "alpha_qe uses no local descriptors"),
        ("rrt[weight=2]", "'rrt[weight=2]': setting rrt.weight=2"),
        ("rrt[depth=2]", "'rrt[depth=2]': unknown setting 'depth'"),
        ("+maxsim", "'': no such method"),
        ("", "'': no such method"),
        ("max sim", "no such method"),
    ],
)
def test_what_is_wrong_with_a_member_is_one_line_that_names_it(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        configure(text, {}, "x.pt")


def test_a_chain_that_says_two_numbers_is_refused():
    with pytest.raises(InputError, match="num_rerank=7 says another number"):
        configure("maxsim[num=9]", {}, num_rerank=7)
