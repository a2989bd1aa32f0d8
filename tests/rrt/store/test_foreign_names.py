"""Images of a store by names whose letters a Mac decomposed."""

import unicodedata

import pytest
from builders import make_records

from rrt.errors import InputError
from rrt.store.store import Store
from rrt.store.writer import write_store


def decomposed(name):
    return unicodedata.normalize("NFD", name)


def test_a_name_is_found_whatever_the_normal_form_of_its_letters(tmp_path):
    for there, asked in ((str, decomposed), (decomposed, str)):
        records = make_records([there("jpg/Müller.jpg"), there("jpg/Église.jpg"), "tower.jpg"])
        with Store(write_store(tmp_path / "delg_x.h5", records)) as store:
            assert store.index(asked("jpg/Müller.jpg")) == 0 and store.index(asked("Église")) == 1
            assert store.index("tower") == 2 and asked("Muller") not in store
        (tmp_path / "delg_x.h5").unlink()


def test_names_that_look_the_same_are_two_by_their_whole_names_and_refused_by_their_stem(tmp_path):
    names = ["a/Müller.jpg", decomposed("a/Müller.jpg")]
    with Store(write_store(tmp_path / "delg_x.h5", make_records(names))) as store:
        assert [store.index(name) for name in names] == [0, 1]
        with pytest.raises(InputError, match="may be"):
            store.index("Müller")
