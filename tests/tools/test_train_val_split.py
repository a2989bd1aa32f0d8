"""tools/train_val_split.py: whole landmarks are held out, the ground truth says what belongs together."""

import numpy as np
import pytest
from builders import make_store
from commands import assert_one_line_error, files_below, run_tool
from hypothesis import given
from hypothesis import strategies as st

from rrt.datasets.split import split_in_folds, train_val_split
from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.formats.ground_truth import pixel_box
from rrt.formats.lists import read_image_list, write_image_list
from rrt.formats.revisited import load_revisited_set
from rrt.store.store import Store

TOOL = "tools/train_val_split.py"


def write_train(folder, counts, label_of=lambda i: 10 * i):
    """A list with counts[i] images of label 10 i, the landmarks mixed, every size different."""
    labels = np.random.default_rng(0).permutation(np.repeat([label_of(i) for i in range(len(counts))], counts))
    names = [f"a/b,{i}.jpg" for i in range(len(labels))]
    write_image_list(folder / "train.txt", names, labels, [(100 + i, 200 + i) for i in range(len(labels))])
    return read_image_list(folder / "train.txt")


def check(images, split, queries, distractors):
    train = read_image_list(split.train)
    val = load_revisited_set(split.query, split.gallery, split.gnd)
    held_out = set(split.held_out.tolist())
    assert held_out.isdisjoint(train.labels.tolist())
    positives = val.gallery.names[: len(val.gallery) - distractors]
    extra = val.gallery.names[len(positives) :]
    assert sorted(train.names + val.query.names + positives) == sorted(images.names)
    assert len(set(extra)) == distractors and set(extra) <= set(train.names)
    labels, sizes = dict(zip(images.names, images.labels)), dict(zip(images.names, images.sizes.tolist()))
    for part in (train, val.query, val.gallery):
        assert part.labels.tolist() == [labels[name] for name in part.names]
        assert part.sizes.tolist() == [sizes[name] for name in part.names]
    assert dict(zip(*np.unique(val.query.labels, return_counts=True))) == dict.fromkeys(held_out, queries)
    for label, size, entry in zip(val.query.labels, val.query.sizes.tolist(), val.truth.gnd):
        assert entry["easy"].tolist() == np.flatnonzero(val.gallery.labels == label).tolist() != []
        assert len(entry["hard"]) == len(entry["junk"]) == 0
        x1, y1, x2, y2 = entry["bbx"]
        assert (x1, y1, x2, y2) == pixel_box(entry) == (0, 0, *size)  # the whole image, as an extraction crops it
    return val


def test_folds_hold_out_every_landmark_once_and_views_go_with_their_photographs(tmp_path):
    images = write_train(tmp_path, [6] * 5 + [2])
    make_store(tmp_path, names=images.names)
    (tmp_path / "views").mkdir()
    of = np.repeat(np.arange(len(images)), 2)
    write_image_list(tmp_path / "views/train.txt", [f"v/{i}.jpg" for i in range(len(of))], of, [(9, 9)] * len(of))
    make_store(tmp_path / "views", 3)
    command = [TOOL, tmp_path / "train.txt", tmp_path / "t", tmp_path / "v", "--folds", 2, "--queries", 2]
    finished = run_tool(*command, "--view_list", tmp_path / "views/train.txt", "--link_stores")
    assert finished.returncode == 0, finished.stderr
    held_out = []
    for fold in range(2):
        train = read_image_list(tmp_path / f"t_{fold}/train.txt")
        query = read_image_list(tmp_path / f"v_{fold}/test_query.txt")
        assert set(query.labels).isdisjoint(train.labels)
        held_out += np.unique(query.labels).tolist()
        views = read_image_list(tmp_path / f"t_{fold}_views/train.txt")
        assert views.labels.tolist() == np.repeat(np.arange(len(train)), 2).tolist()
        of_view = [images.names[of[int(name[2:-4])]] for name in views.names]
        assert of_view == [train.names[label] for label in views.labels]
        assert (tmp_path / f"t_{fold}_views/delg_test.h5").resolve() == tmp_path / "views/delg_test.h5"
    # The one of too few images is always trained on.
    assert sorted(held_out) == [0, 10, 20, 30, 40]
    with pytest.raises(InputError, match="5 landmarks of more than 2 images make no 6 folds"):
        split_in_folds(tmp_path / "train.txt", tmp_path / "a", tmp_path / "b", 6, queries=2)
    write_image_list(tmp_path / "views/train.txt", ["v/0.jpg"], [99], [(9, 9)])
    options = {"landmarks": 2, "view_list": tmp_path / "views/train.txt"}
    with pytest.raises(InputError, match=r"train.txt:1: a view of photograph 99, .* has 32"):
        train_val_split(tmp_path / "train.txt", tmp_path / "a", tmp_path / "b", **options)
    assert not (tmp_path / "a").exists()


def test_joined_views_are_further_images_of_their_landmark_and_of_no_landmark_held_out(tmp_path):
    images = write_train(tmp_path, [6] * 5)
    make_store(tmp_path, names=images.names)
    views = {f"v/{i}.jpg": i for i in range(len(images))}
    write_image_list(tmp_path / "views/train.txt", list(views), list(views.values()), [(9, 9)] * len(views))
    make_store(tmp_path / "views", names=list(views))
    command = [TOOL, tmp_path / "train.txt", tmp_path / "t", tmp_path / "v", "--folds", 2, "--queries", 2]
    command += ["--distractors", 5, "--join_views", "--link_stores"]
    assert_one_line_error(run_tool(*command), "no list of made views to join")
    finished = run_tool(*command, "--view_list", tmp_path / "views/train.txt")
    assert finished.returncode == 0, finished.stderr
    labels = dict(zip(images.names, images.labels)) | {name: images.labels[of] for name, of in views.items()}
    for fold in range(2):
        train = read_image_list(tmp_path / f"t_{fold}/train.txt")
        joined = read_image_list(tmp_path / f"t_{fold}_joined/train.txt")
        shown = [name for name, of in views.items() if images.names[of] in train.names]
        assert joined.names == train.names + shown and len(shown) == len(train) < len(images)
        assert joined.labels.tolist() == [labels[name] for name in joined.names]
        assert joined.sizes.tolist() == train.sizes.tolist() + [[9, 9]] * len(shown)
        with Store(tmp_path / f"t_{fold}_joined/delg_test.h5") as store:
            assert [store.names[row] for row in store.indices(joined.names, joined)] == joined.names
        query, gallery = (read_image_list(tmp_path / f"v_{fold}/test_{part}.txt") for part in ("query", "gallery"))
        assert set(query.labels).isdisjoint(joined.labels) and views.keys().isdisjoint(query.names + gallery.names)


def test_another_query_seed_draws_other_queries_of_the_same_landmarks(tmp_path):
    write_train(tmp_path, [9] * 8)
    drawn = [
        train_val_split(
            tmp_path / "train.txt",
            tmp_path / f"t{seed}",
            tmp_path / f"v{seed}",
            landmarks=3,
            queries=2,
            distractors=10,
            query_seed=seed,
        )
        for seed in (None, 1, 2, 2)
    ]
    lists = [(read_image_list(split.query).names, read_image_list(split.gallery).names) for split in drawn]
    assert all((split.held_out == drawn[0].held_out).all() for split in drawn)
    assert all(split.train.read_text() == drawn[0].train.read_text() for split in drawn)
    assert lists[2] == lists[3]
    assert len({tuple(query) for query, _ in lists}) == len({tuple(gallery) for _, gallery in lists}) == 3


@given(counts=st.lists(st.integers(1, 6), min_size=3, max_size=12), queries=st.integers(1, 3), data=st.data())
def test_every_image_goes_to_one_side_and_landmarks_stay_whole(tmp_path_factory, counts, queries, data):
    folder = tmp_path_factory.mktemp("split")
    images = write_train(folder, counts)
    most = min(sum(count > queries for count in counts), len(counts) - 2)
    if most < 1:
        with pytest.raises(InputError):
            train_val_split(folder / "train.txt", folder / "t", folder / "v", landmarks=1, queries=queries)
        return
    landmarks = data.draw(st.integers(1, most))
    split = train_val_split(
        folder / "train.txt",
        folder / "t",
        folder / "v",
        landmarks=landmarks,
        queries=queries,
        distractors=1,
        seed=data.draw(st.integers(0, 99)),
    )
    assert len(split.held_out) == landmarks
    check(images, split, queries, distractors=1)


def test_the_seed_alone_decides(tmp_path):
    write_train(tmp_path, [5] * 10)

    def contents(folder, seed):
        split = train_val_split(
            tmp_path / "train.txt",
            tmp_path / folder / "t",
            tmp_path / folder / "v",
            fraction=0.3,
            distractors=4,
            seed=seed,
        )
        return [path.read_bytes() for path in (split.train, split.query, split.gallery, split.gnd)]

    assert contents("a", 1) == contents("b", 1) != contents("c", 2)


def test_the_validation_set_can_be_searched_through_linked_stores(tmp_path):
    names = [f"jpg/{i}.jpg" for i in range(12)]
    make_store(tmp_path, names=names)
    write_image_list(tmp_path / "train.txt", names, np.repeat([0, 1, 2, 3], 3), [(640, 480)] * 12)
    split = train_val_split(
        tmp_path / "train.txt", tmp_path / "t", tmp_path / "v", "held", landmarks=2, distractors=2, link_stores=True
    )
    assert split.gnd.name == "gnd_held.pkl"
    ranked = prepare_topk_revisited(tmp_path / "v", "test", "gnd_held.pkl")
    assert ranked.nn_inds.shape == (2, 6) and 0 < ranked.results["medium"].map <= 1
    assert np.isnan(ranked.results["hard"].map)
    assert Store(tmp_path / "t" / "delg_test.h5").names == names
    # Again over what is there: the links point to the store already.
    train_val_split(tmp_path / "train.txt", tmp_path / "t", tmp_path / "v", "held", landmarks=2, link_stores=True)


def test_the_command_says_what_it_wrote(tmp_path):
    images = write_train(tmp_path, [4] * 6)
    finished = run_tool(TOOL, "train.txt", "t", "v", "--fraction", 0.5, "--queries", 2, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "t/train.txt: 12 images for training",
        "v/gnd_val.pkl: 3 landmarks held out, 6 queries, 6 gallery images",
    ]
    val = load_revisited_set(tmp_path / "v/test_query.txt", tmp_path / "v/test_gallery.txt", tmp_path / "v/gnd_val.pkl")
    train = read_image_list(tmp_path / "t/train.txt")
    assert set(val.query.names + val.gallery.names + train.names) == set(images.names)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["absent.txt", "t", "v", "--landmarks", "1"], ["absent.txt"]),
        (["empty.txt", "t", "v", "--landmarks", "1"], ["empty.txt", "empty"]),
        (["short.txt", "t", "v", "--landmarks", "1"], ["short.txt:1"]),
        (["train.txt", "t", "v", "--landmarks", "5"], ["train.txt", "5 landmarks", "only 4"]),
        (["train.txt", "t", "v", "--landmarks", "4"], ["fewer than two"]),
        (["train.txt", "t", "v", "--landmarks", "0"], ["at least 1"]),
        (["train.txt", "t", "v", "--landmarks", "1", "--queries", "3"], ["only 0 of 5"]),
        (["train.txt", "t", "v", "--landmarks", "1", "--distractors", "99"], ["99 distractors"]),
        (["train.txt", "t", "v", "--fraction", "1.5"], ["fraction 1.5"]),
        (["train.txt", ".", "v", "--landmarks", "1"], ["train.txt", "overwrite"]),
        (["train.txt", "t", "t", "--landmarks", "1"], ["two folders"]),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(tmp_path, arguments, parts):
    write_train(tmp_path, [3, 3, 3, 3, 1])
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("a.jpg,1\n")
    before = files_below(tmp_path)
    assert_one_line_error(run_tool(TOOL, *arguments, cwd=tmp_path), *parts)
    assert files_below(tmp_path) == before


def test_a_file_in_the_way_of_a_link_is_left_alone(tmp_path):
    make_store(tmp_path, n=9)
    write_image_list(
        tmp_path / "train.txt", [f"jpg/img_{i:03d}.jpg" for i in range(9)], np.repeat([0, 1, 2], 3), [(640, 480)] * 9
    )
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "delg_test.h5").write_bytes(b"mine")
    with pytest.raises(InputError, match="stands in the way"):
        train_val_split(tmp_path / "train.txt", tmp_path / "t", tmp_path / "v", landmarks=1, link_stores=True)
    assert (tmp_path / "v" / "delg_test.h5").read_bytes() == b"mine" and not (tmp_path / "t").exists()


def test_images_that_a_store_does_not_hold_leave_the_lists(tmp_path):
    names = [f"{landmark}/{image}.jpg" for landmark in "abcd" for image in range(3)]
    write_image_list(tmp_path / "all.txt", names, np.repeat(np.arange(4), 3), [(640, 480)] * 12)
    store = make_store(tmp_path, names=names[:4] + names[6:], desc_name="x")
    split = train_val_split(
        tmp_path / "all.txt", tmp_path / "train", tmp_path / "val", landmarks=2, queries=1, store=store.path
    )
    assert split.num_left_out == 2 and split.num_train + split.num_query + split.num_gallery == 10
    for folder in ("train", "val"):
        assert Store(tmp_path / folder / "delg_x.h5").names == store.names
    listed = [name for path in (split.train, split.query, split.gallery) for name in read_image_list(path).names]
    assert sorted(listed) == sorted(store.names)
    few = make_store(tmp_path, names=names[:6], desc_name="few")
    with pytest.raises(InputError, match="all.txt: 2 landmarks with images that can be used; three are needed"):
        train_val_split(tmp_path / "all.txt", tmp_path / "train", tmp_path / "val", landmarks=1, store=few.path)
