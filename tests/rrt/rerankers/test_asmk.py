"""ASMK and ASMK*: the kernel of loops over words and descriptors, the inverted file, codebooks."""

import numpy as np
import pytest
from builders import make_records, make_store, unit_rows
from commands import error_of, files_below
from hypothesis import given, settings
from hypothesis import strategies as st

from rrt.commands import train_codebook as tool
from rrt.errors import InputError
from rrt.formats.lists import write_image_list
from rrt.rerankers import asmk as module
from rrt.rerankers import make_chain, make_method
from rrt.rerankers.base import SearchSpace, Shortlist
from rrt.rerankers.codebook import Codebook, load_codebook, make_codebook, train_codebook
from rrt.store import checked
from rrt.store.checked import sample_descriptors
from rrt.store.memory import MemoryStore
from rrt.store.store import Store
from rrt.store.writer import write_store

DIM = 8
COUNTS = [12, 0, 30, 1, 25, 12, 18, 9, 40]
FORMS = [
    {},
    {"binary": True, "multiple_assignment": 1},
    {"idf": True, "alpha": 1.5},
    {"multiple_assignment": 3, "tau": 0.1},
    {"binary": True, "idf": True, "multiple_assignment": 2, "tau": -0.3},
    {"max_local": 7, "tau": -1, "alpha": 2},
]


@pytest.fixture
def codebook(tmp_path):
    return str(Codebook(0.7 * unit_rows(np.random.default_rng(5), 6, DIM), {}).save(tmp_path / "words.npz"))


@pytest.fixture
def space(tmp_path):
    return space_of(make_store(tmp_path, n=len(COUNTS), num_local=COUNTS, local_dim=DIM))


def space_of(store):
    # Two queries stand in the gallery as well, one image of it stands there twice.
    return SearchSpace(store, np.array([0, 2, 1, 4]), np.array([3, 2, 5, 4, 1, 6, 7, 8, 2]))


def whole(space, queries=None):
    everything = np.arange(len(space.gallery_index))
    return [
        Shortlist(query, everything, np.zeros(len(everything), np.float32))
        for query in (range(len(space.query_index)) if queries is None else queries)
    ]


def residuals_of(words, descriptors, assignments, binary):
    """{word: V^} of an image, descriptor by descriptor."""
    sums = {}
    for x in descriptors.astype(np.float64):
        for word in sorted(range(len(words)), key=lambda c: np.linalg.norm(x - words[c]))[:assignments]:
            sums[word] = sums.get(word, 0) + (x - words[word])
    if binary:
        return {word: np.where(total > 0, 1, -1) / np.sqrt(len(total)) for word, total in sums.items()}
    return {word: (total / np.linalg.norm(total)).astype(np.float16).astype(float) for word, total in sums.items()}


def slow_scores(space, words, binary=False, alpha=3.0, tau=0.0, idf=False, multiple_assignment=5, max_local=None):
    def image(place, assignments):
        return residuals_of(words, space.store.read(place, max_local).descriptors, assignments, binary)

    gallery = [image(place, 1) for place in space.gallery_index]
    held = {c: sum(c in each for each in gallery) for c in range(len(words))}
    weight = {c: np.log(1 + len(gallery) / max(1, held[c])) ** 2 if idf else 1 for c in held}

    def kernel(first, second):
        total = 0
        for c in first:
            if c in second:
                u = first[c] @ second[c]
                total += weight[c] * np.sign(u) * abs(u) ** alpha if u > tau else 0
        norms = [sum(weight[c] for c in each) for each in (first, second)]
        return total / np.sqrt(norms[0] * norms[1]) if all(norms) else 0

    return np.array([[kernel(image(q, multiple_assignment), each) for each in gallery] for q in space.query_index])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_whole_gallery_and_shortlists_are_scored_as_by_loops_over_words_and_descriptors(
    space, codebook, form, monkeypatch
):
    monkeypatch.setattr(module, "_IMAGES_PER_BLOCK", 2)
    monkeypatch.setattr(module, "_CANDIDATES_PER_BLOCK", 3)
    expected = slow_scores(space, load_codebook(codebook).words, **form)
    method = make_method("asmk", {"codebook": codebook, **form})
    np.testing.assert_allclose(np.stack(method.scores(space, whole(space))), expected, atol=1e-5)
    shortlists = [
        Shortlist(2, np.array([4, 0]), np.zeros(2)),
        Shortlist(0, np.array([8, 1, 5, 2, 8]), np.zeros(5)),
        Shortlist(3, np.empty(0, int), np.zeros(0)),
        Shortlist(0, np.array([7]), np.zeros(1)),
    ]
    for share in (0, 9):
        monkeypatch.setattr(module, "_WIDE", share)
        for shortlist, scores in zip(shortlists, method.scores(space, shortlists), strict=True):
            np.testing.assert_allclose(scores, expected[shortlist.query, shortlist.candidates], atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([{}, {"binary": True}, {"idf": True}, {"tau": 0.5, "alpha": 1}]))
def test_an_image_is_1_to_itself_and_no_pair_more(tmp_path_factory, seed, form):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 20, 6)
    store = MemoryStore.of(make_records([f"{i}" for i in range(6)], seed, counts, local_dim=DIM))
    words = unit_rows(generator, 5, DIM)
    path = Codebook(words, {}).save(tmp_path_factory.getbasetemp() / "own.npz")
    places = np.arange(6)
    if not counts.any():
        return
    single = make_method("asmk", {"codebook": str(path), "multiple_assignment": 1, **form})
    space = SearchSpace(store, places, places)
    scores = np.stack(single.scores(space, whole(space)))
    np.testing.assert_allclose(np.diagonal(scores), counts > 0, atol=3e-3)
    np.testing.assert_allclose(scores, scores.T, atol=1e-6)
    assert scores.max() < 1.003


def test_the_inverted_file_is_made_once_for_a_space(space, codebook, monkeypatch):
    made = []
    monkeypatch.setattr(module.InvertedFile, "__init__", counted(module.InvertedFile.__init__, made))
    method = make_method("asmk", {"codebook": codebook})
    method.prepare(space)
    method.scores(space, whole(space))
    assert len(made) == 1 and method.scores(space, []) == []
    method.scores(space_of(space.store), whole(space))
    assert len(made) == 2


def counted(function, calls):
    return lambda *arguments: calls.append(1) or function(*arguments)


def test_bytes_are_those_held_and_fewer_as_bits(space, codebook):
    sizes = [make_method("asmk", {"codebook": codebook, "binary": b}).bytes_per_image(space) for b in (False, True)]
    assert 0 < sizes[1] < sizes[0] <= 2 * DIM * 6 + 12 * 6 + 30


@pytest.mark.parametrize("layout", ["int8", "float32"])
def test_other_kinds_of_stores_are_read(tmp_path, codebook, layout):
    records = make_records([f"{i}" for i in range(9)], 0, COUNTS, local_dim=DIM)
    space = space_of(Store(write_store(tmp_path / "s.h5", records, local_dtype=layout)))
    scores = np.stack(make_method("asmk", {"codebook": codebook}).scores(space, whole(space)))
    np.testing.assert_allclose(scores, slow_scores(space, load_codebook(codebook).words), atol=1e-5)


@pytest.mark.parametrize(
    "wrong, part",
    [
        ({"codebook": None}, "tools/train_codebook.py"),
        ({"codebook": "absent.npz"}, "absent.npz: no such codebook"),
        ({"binary": 1}, "binary=1"),
        ({"alpha": -1}, "alpha=-1"),
        ({"alpha": "3"}, "alpha='3'"),
        ({"tau": 1}, "tau=1"),
        ({"tau": float("-inf")}, "tau=-inf"),
        ({"idf": 1}, "idf=1"),
        ({"multiple_assignment": 0}, "multiple_assignment=0"),
        ({"max_local": 0}, "max_local=0"),
        ({"beta": 1}, "'beta'"),
        ({"alpha": float("nan")}, "alpha=nan"),
    ],
)
def test_wrong_settings_are_refused(codebook, wrong, part):
    with pytest.raises(InputError, match=part.replace(".", r"\.")):
        make_method("asmk", {"codebook": codebook} | wrong)


def test_a_store_that_does_not_fit_the_codebook_is_refused(tmp_path, codebook):
    method = make_method("asmk", {"codebook": codebook})
    for sizes, part in (({"local_dim": 5}, "have 5"), ({"num_local": 0, "local_dim": DIM}, "no local descriptors")):
        with pytest.raises(InputError, match=part):
            method.prepare(space_of(make_store(tmp_path, n=9, **sizes)))


def test_a_codebook_is_the_same_for_the_same_seed_and_its_words_are_means(tmp_path):
    generator = np.random.default_rng(0)
    centres = unit_rows(generator, 4, DIM)
    records = make_records([f"{i}" for i in range(20)], 0, 8, local_dim=DIM)
    for record in records:
        record.descriptors[:] = centres[generator.integers(0, 4, 8)] + 0.01 * generator.standard_normal((8, DIM))
    path = write_store(tmp_path / "s.h5", records)
    files = []
    for seed in (1, 1, 2):
        made = make_codebook(path, tmp_path / "c.npz", size=4, sample=120, seed=seed)
        files.append((tmp_path / "c.npz").read_bytes())
        rows = sample_descriptors(Store(path), 120, seed=seed)
        nearest = np.linalg.norm(rows[:, None] - made.words, axis=2).argmin(axis=1)
        means = np.stack([rows[nearest == word].mean(axis=0) for word in range(4)])
        np.testing.assert_allclose(made.words, means, atol=1e-3)
        assert made.origin["descriptors"] == "120"
    assert files[0] == files[1] != files[2]
    read = load_codebook(tmp_path / "c.npz")
    assert read.origin["seed"] == "2" and read.origin["store"] == str(path) and read.words.dtype == np.float32


def test_the_sample_is_of_the_images_asked_for_in_stored_order(tmp_path, monkeypatch):
    monkeypatch.setattr(checked, "_SAMPLED_PER_BLOCK", 2)
    store = make_store(tmp_path, n=9, num_local=COUNTS, local_dim=DIM)
    images = np.array([7, 1, 4, 0, 8])
    everything = np.concatenate([store.read(i).descriptors for i in images])
    np.testing.assert_array_equal(sample_descriptors(store, 10**6, images), everything)
    some = sample_descriptors(store, 30, images, seed=3)
    rows = [int(np.flatnonzero((everything == row).all(axis=1))[0]) for row in some]
    assert (
        len(rows) == 30
        and rows == sorted(set(rows))
        and np.array_equal(some, sample_descriptors(store, 30, images, seed=3))
    )
    chosen = np.concatenate([sample_descriptors(store, 30, images, seed=s) @ everything.T for s in range(60)]).argmax(
        axis=1
    )
    assert len(set(chosen.tolist())) == len(everything)


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["absent.h5", "c.npz"], "absent.h5"),
        (["delg_test.h5", "c.txt"], "ends in .npz"),
        (["delg_test.h5", "c.npz", "--size", "0"], "size 0"),
        (["delg_test.h5", "c.npz", "--seed", "-1"], "seed -1"),
        (["delg_test.h5", "c.npz", "--size", "8", "--sample", "7"], "as large at least"),
        (["delg_test.h5", "c.npz", "--size", "9000"], "at most 30"),
        (["none.h5", "c.npz"], "no local descriptors"),
        (["delg_test.h5", "c.npz", "--list", "absent.txt"], "absent.txt"),
        (["delg_test.h5", "c.npz", "--list", "new.txt"], "line 1 of new.txt"),
    ],
)
def test_wrong_input_of_the_tool_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, part):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path), make_store(tmp_path, num_local=0, file_name="none.h5")
    write_image_list(tmp_path / "new.txt", ["new.jpg"], [0], [(1, 1)])
    before = files_below(tmp_path)
    assert part in error_of(tool.main, arguments, monkeypatch, capsys)
    assert files_below(tmp_path) == before


def test_what_is_no_codebook_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.savez(tmp_path / "flat.npz", words=np.zeros(3, np.float32))
    np.savez(tmp_path / "nan.npz", words=np.full((2, 3), np.nan, np.float32))
    np.savez(tmp_path / "pickle.npz", words=np.array([[print]], dtype=object))
    for path in sorted(tmp_path.glob("*.npz")):
        with pytest.raises(InputError, match=f"{path.name}: .*tools/train_codebook.py"):
            load_codebook(path)


def test_training_refuses_nonsense(tmp_path):
    with pytest.raises(InputError, match="iterations 0"):
        train_codebook(make_store(tmp_path), 2, iterations=0)


def test_a_codebook_learned_on_the_gallery_is_named_with_a_warning(tmp_path, capsys):
    store = make_store(tmp_path, n=6, local_dim=DIM)
    made, space = tmp_path / "c.npz", SearchSpace(store, np.arange(2), np.arange(2, 6))
    write_image_list(tmp_path / "train.txt", store.names[:2] + store.names[5:], [0, 0, 1], [(640, 480)] * 3)
    for list_path, seen in ((None, 4), (tmp_path / "train.txt", 1)):
        make_codebook(store.path, made, list_path, size=4)
        method = make_method("asmk", {"codebook": str(made)})
        method.prepare(space)
        told = f"{made}: the codebook was learned on {seen} of the 4 images of the gallery"
        assert told in capsys.readouterr().err and told in make_chain("asmk+asmk", {"asmk": {"codebook": made}}).remark(
            space
        )
    other = SearchSpace(make_store(tmp_path, names=["a", "b", "c"], local_dim=DIM), np.arange(1), np.arange(1, 3))
    method.prepare(other)
    assert capsys.readouterr().err == "" and method.remark(other) == ""
    Codebook(load_codebook(made).words, {}).save(made)  # as those of before, which do not say
    assert make_method("asmk", {"codebook": str(made)}).remark(space) == ""
