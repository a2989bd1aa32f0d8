"""Image lists of folders of photographs, of Revisited ground truth and of Google Landmarks v2."""

import hashlib

import numpy as np
import pytest
from builders import make_store
from commands import assert_one_line_error, files_below, run_tool
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rrt.datasets.split import keep_described
from rrt.errors import InputError
from rrt.formats.ground_truth import load_ground_truth, save_ground_truth
from rrt.formats.listing import (
    _choose,
    image_size,
    image_sizes,
    list_folder,
    list_gldv2_test,
    list_gldv2_train,
    list_photographs,
    list_revisited,
)
from rrt.formats.lists import read_image_list
from rrt.formats.revisited import load_revisited_set


def draw_header(path, size=(40, 30)):
    """An image without pixels: whoever decodes it fails, and its header is written in no time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 %d %d 255\n" % size)


def ids(count, prefix=""):
    return [hashlib.md5(f"{prefix}{i}".encode()).hexdigest()[:16] for i in range(count)]


def draw_gldv2(root, split, images, size=(40, 30)):
    for image in images:
        draw_header(root / split / image[0] / image[1] / image[2] / f"{image}.jpg", size)


@pytest.fixture
def photos(tmp_path):
    for landmark, size in (("bridge", (40, 30)), ("arch", (30, 50))):
        for i in range(2):
            draw_header(tmp_path / "photos" / landmark / f"{i} é,.jpg", size)
    return tmp_path / "photos"


class TestSizes:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
    def test_the_size_is_that_of_the_picture(self, tmp_path, suffix):
        Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(tmp_path / f"a.{suffix}")
        assert image_size(tmp_path / f"a.{suffix}") == (50, 30)

    def test_pictures_without_a_size_have_a_reason(self, tmp_path):
        draw_header(tmp_path / "a.jpg")
        (tmp_path / "b.jpg").write_bytes(b"not an image")
        (tmp_path / "c.jpg").mkdir()
        rows, sizes, skipped = image_sizes(tmp_path, ["b.jpg", "a.jpg", "c.jpg", "d.jpg"])
        assert rows.tolist() == [1] and sizes.tolist() == [[40, 30]]
        assert list(skipped) == ["b.jpg", "c.jpg", "d.jpg"] and skipped["d.jpg"] == "no such file"
        assert all(reason and "\n" not in reason for reason in skipped.values())

    def test_several_processes_find_the_same_in_the_same_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr("rrt.formats.listing._NAMES_PER_JOB", 3)
        names = [f"{i}.jpg" for i in range(8)]
        for i, name in enumerate(names[:-1]):
            draw_header(tmp_path / name, (i + 1, 5))
        rows, sizes, skipped = image_sizes(tmp_path, names, num_workers=2)
        assert rows.tolist() == list(range(7)) and sizes[:, 0].tolist() == list(range(1, 8))
        assert skipped == {"7.jpg": "no such file"}


class TestFolder:
    def test_labels_follow_the_alphabet_and_sizes_are_width_then_height(self, photos, tmp_path):
        written = list_folder(photos, tmp_path / "train.txt")
        assert written.counts == {tmp_path / "train.txt": 4} and not written.skipped
        images = read_image_list(tmp_path / "train.txt")
        assert images.names == ["arch/0 é,.jpg", "arch/1 é,.jpg", "bridge/0 é,.jpg", "bridge/1 é,.jpg"]
        assert images.labels.tolist() == [0, 0, 1, 1]
        assert images.sizes[0].tolist() == [30, 50]

    def test_an_unreadable_picture_is_listed_and_the_rest_is_written(self, photos, tmp_path):
        (photos / "arch" / "broken.jpg").write_bytes(b"not an image")
        command = ["tools/prepare_data.py", "folder", photos, tmp_path / "train.txt"]
        assert_one_line_error(run_tool(*command), "1 images cannot be read", "arch/broken.jpg", "--allow_missing")
        assert len(read_image_list(tmp_path / "train.txt")) == 4
        assert "arch/broken.jpg," in (tmp_path / "train.txt.skipped.csv").read_text()
        finished = run_tool(*command, "--allow_missing")
        assert finished.returncode == 0 and "skipped arch/broken.jpg: " in finished.stdout
        (photos / "arch" / "broken.jpg").unlink()
        list_folder(photos, tmp_path / "train.txt")
        assert not (tmp_path / "train.txt.skipped.csv").exists()

    def test_a_folder_without_pictures_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no images in sub-folders"):
            list_folder(tmp_path, tmp_path / "train.txt")
        with pytest.raises(InputError, match="no such folder"):
            list_folder(tmp_path / "missing", tmp_path / "train.txt")


class TestPhotographs:
    def test_every_photograph_of_a_folder_or_of_a_list_of_paths_is_an_identity(self, photos, tmp_path):
        draw_header(photos / "beside.jpg", (20, 10))
        draw_header(photos / "@eaDir" / "hidden.jpg")
        (photos / "broken.jpg").write_bytes(b"not an image")
        written = list_photographs(photos, tmp_path / "train.txt", exclude=["arch"])
        images = read_image_list(tmp_path / "train.txt")
        assert images.names == ["beside.jpg", "bridge/0 é,.jpg", "bridge/1 é,.jpg"]
        assert images.labels.tolist() == [0, 1, 2] and images.sizes.tolist() == [[20, 10], [40, 30], [40, 30]]
        assert list(written.skipped) == ["broken.jpg"]
        paths = photos / "some.txt"
        paths.write_text("bridge/1 é,.jpg\narch/0 é,.jpg,7,30,50\n\nbridge/1 é,.jpg\n", encoding="utf-8")
        finished = run_tool("tools/prepare_data.py", "photographs", paths, tmp_path / "some.txt")
        assert finished.returncode == 0, finished.stderr
        assert read_image_list(tmp_path / "some.txt").names == ["bridge/1 é,.jpg", "arch/0 é,.jpg"]
        assert read_image_list(tmp_path / "some.txt").labels.tolist() == [0, 1]

    def test_what_a_store_does_not_hold_is_left_out(self, photos, tmp_path):
        list_photographs(photos, tmp_path / "all.txt")
        store = make_store(tmp_path, names=["arch/1 é,.jpg", "bridge/0 é,.jpg", "other.jpg"])
        finished = run_tool("tools/prepare_data.py", "described", tmp_path / "all.txt", store.path, tmp_path / "b.txt")
        assert finished.returncode == 0, finished.stderr
        assert read_image_list(tmp_path / "b.txt").names == ["arch/1 é,.jpg", "bridge/0 é,.jpg"]
        assert "left out 2 images that" in finished.stdout
        with pytest.raises(InputError, match="holds none of the 4 images"):
            keep_described(tmp_path / "all.txt", make_store(tmp_path, desc_name="x", names=["y.jpg"]).path, "unused")

    def test_nothing_to_list_is_refused(self, tmp_path):
        (tmp_path / "blank.txt").write_text("\n\n")
        for source, words in ((tmp_path / "blank.txt", "no photographs"), (tmp_path / "absent", "cannot be read")):
            with pytest.raises(InputError, match=words):
                list_photographs(source, tmp_path / "train.txt")


class TestRevisited:
    @pytest.mark.parametrize(
        "name, gnd, stored", [("oxford5k", "gnd_roxford5k.pkl", "box"), ("paris6k", "gnd_rparis6k.pkl", "picture")]
    )
    def test_the_published_lines_come_back_exactly(self, shared_data, tmp_path, name, gnd, stored):
        # The first images only, which show every landmark: drawing thousands would take most of the test.
        published, some = shared_data / "revisited" / name, 500
        truth = load_ground_truth(published / gnd)
        boxes = [{"bbx": entry["bbx"], "easy": [], "hard": [], "junk": []} for entry in truth.gnd]
        save_ground_truth(tmp_path / "gnd.pkl", truth.imlist[:some], truth.qimlist, boxes)
        lists = ("test_query.txt", "test_gallery.txt")
        for file in lists[stored == "box" :]:
            images = read_image_list(published / file)
            for image, size in zip(images.names[:some], images.sizes.tolist()):
                draw_header(tmp_path / image, tuple(size))
        list_revisited(tmp_path, tmp_path / "gnd.pkl", tmp_path / "out")
        for file in lists:
            assert (tmp_path / "out" / file).read_text().splitlines() == (published / file).read_text().splitlines()[
                :some
            ]

    def make(self, folder, names=("arch_000002", "bridge_1"), **changes):
        for name in names:
            draw_header(folder / "jpg" / f"{name}.jpg", (40, 30))
        entry = {"bbx": [1.5, 2.0, 11.2, 9.9], "easy": [0], "hard": [], "junk": [1]}
        save_ground_truth(folder / "gnd.json", list(names), ["arch_000001"], [entry])

    def test_a_query_has_the_size_of_its_box_or_of_its_picture(self, tmp_path):
        self.make(tmp_path)
        list_revisited(tmp_path, tmp_path / "gnd.json", tmp_path)
        loaded = load_revisited_set(tmp_path / "test_query.txt", tmp_path / "test_gallery.txt", tmp_path / "gnd.json")
        assert loaded.query.sizes.tolist() == [[10, 8]] and loaded.gallery.sizes.tolist() == [[40, 30]] * 2
        assert loaded.query.labels.tolist() == [0] and loaded.gallery.labels.tolist() == [0, 1]
        draw_header(tmp_path / "jpg" / "arch_000001.jpg", (70, 20))
        list_revisited(tmp_path, tmp_path / "gnd.json", tmp_path, query_size="picture")
        assert read_image_list(tmp_path / "test_query.txt").sizes.tolist() == [[70, 20]]

    def test_pictures_of_other_kinds_are_found(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "jpg" / "bridge_1.jpg").rename(tmp_path / "jpg" / "bridge_1.png")
        list_revisited(tmp_path, tmp_path / "gnd.json", tmp_path)
        assert read_image_list(tmp_path / "test_gallery.txt").names == ["jpg/arch_000002.jpg", "jpg/bridge_1.png"]

    def test_a_missing_picture_is_refused_and_nothing_is_written(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "jpg" / "bridge_1.jpg").unlink()
        finished = run_tool("tools/prepare_data.py", "revisited", tmp_path, tmp_path / "gnd.json", tmp_path / "out")
        assert_one_line_error(finished, "1 of 3 images", "gnd.json", "jpg/bridge_1.jpg: no such file")
        assert not (tmp_path / "out").exists()


class TestGldv2Train:
    def make(self, folder, clean, sizes=(5, 3, 1, 4)):
        """Landmarks 7, 17, 27, ... with `sizes` images -> (path of the CSV, {landmark: its images})."""
        pictures = {10 * i + 7: ids(count, f"{i}-") for i, count in enumerate(sizes)}
        if clean:
            lines = ["landmark_id,images"] + [f"{landmark},{' '.join(images)}" for landmark, images in pictures.items()]
        else:
            lines = ["id,url,landmark_id"] + [
                f'{image},"http://a/b,{landmark}",{landmark}'
                for landmark, images in pictures.items()
                for image in images
            ]
        (folder / "train.csv").write_text("\n".join(lines) + "\n")
        draw_gldv2(folder, "train", [image for images in pictures.values() for image in images])
        return folder / "train.csv", pictures

    @pytest.mark.parametrize("clean", [False, True])
    def test_lines_follow_the_csv_and_labels_are_landmarks(self, tmp_path, clean):
        path, pictures = self.make(tmp_path, clean)
        written = list_gldv2_train(tmp_path, path, tmp_path / "train.txt")
        images = read_image_list(tmp_path / "train.txt")
        assert images.names == [f"train/{i[0]}/{i[1]}/{i[2]}/{i}.jpg" for row in pictures.values() for i in row]
        assert images.labels.tolist() == [7] * 5 + [17] * 3 + [27] + [37] * 4 and images.sizes[0].tolist() == [40, 30]
        assert written.skipped == {} and written.notes[0].startswith("4 landmarks")

    def test_small_landmarks_are_left_out_and_large_ones_cut(self, tmp_path):
        path, pictures = self.make(tmp_path, True)
        list_gldv2_train(tmp_path, path, tmp_path / "train.txt", min_pictures=3, max_pictures=4, seed=1)
        images = read_image_list(tmp_path / "train.txt")
        assert images.labels.tolist() == [7] * 4 + [17] * 3 + [37] * 4
        everything = [image for row in pictures.values() for image in row]
        places = [everything.index(name[-20:-4]) for name in images.names]
        assert places == sorted(places)
        list_gldv2_train(tmp_path, path, tmp_path / "again.txt", min_pictures=3, max_pictures=4, seed=1)
        assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "train.txt").read_bytes()

    def test_missing_pictures_are_counted_listed_and_do_not_help_a_landmark(self, tmp_path):
        path, pictures = self.make(tmp_path, True)
        for image in (pictures[17][0], pictures[7][1]):
            (tmp_path / "train" / image[0] / image[1] / image[2] / f"{image}.jpg").unlink()
        command = [
            "tools/prepare_data.py",
            "gldv2_train",
            tmp_path,
            path,
            tmp_path / "train.txt",
            "--min_pictures",
            "3",
        ]
        finished = run_tool(*command, "--allow_missing")
        assert finished.returncode == 0 and "skipped 2 images, listed in" in finished.stdout
        assert read_image_list(tmp_path / "train.txt").labels.tolist() == [7] * 4 + [37] * 4
        lines = (tmp_path / "train.txt.skipped.csv").read_text().splitlines()
        assert lines[0] == "name,reason" and len(lines) == 3 and lines[1].endswith(f"{pictures[7][1]}.jpg,no such file")

    def test_nothing_to_list_is_refused(self, tmp_path):
        path, _ = self.make(tmp_path, True)
        for settings, message in (
            ({"min_pictures": 6}, "no landmark has 6 images"),
            ({"min_pictures": 3, "max_pictures": 2}, "expected 1 <= min_pictures"),
            ({"min_pictures": 0}, "expected 1 <= min_pictures"),
        ):
            with pytest.raises(InputError, match=message):
                list_gldv2_train(tmp_path, path, tmp_path / "train.txt", **settings)
        with pytest.raises(InputError, match="none of 13 images can be read"):
            list_gldv2_train(tmp_path / "elsewhere", path, tmp_path / "train.txt")
        assert not (tmp_path / "train.txt").exists()

    @given(
        st.lists(st.integers(0, 6), min_size=1, max_size=40),
        st.integers(1, 5),
        st.integers(0, 4) | st.none(),
        st.integers(0, 9),
    )
    def test_limits_hold_for_every_landmark(self, labels, least, more, seed):
        labels, most = np.array(labels), None if more is None else least + more
        chosen = _choose(labels, least, most, seed)
        assert (np.diff(chosen) > 0).all()
        for label in np.unique(labels):
            has, kept = (labels == label).sum(), (labels[chosen] == label).sum()
            assert kept == (0 if has < least else has if most is None else min(has, most))


class TestGldv2Test:
    def make(self, folder, index=6, queries=3):
        index, queries = ids(index, "index"), ids(queries, "test")
        (folder / "index.csv").write_text("id\n" + "\n".join(index) + "\n")
        (folder / "solution.csv").write_text(
            f"id,images,Usage\n{queries[0]},{index[3]} {index[1]},Public\n{queries[1]},None,Ignored\n"
            f"{queries[2]},{index[1]},Private\n"
        )
        draw_gldv2(folder, "index", index)
        draw_gldv2(folder, "test", queries, (20, 10))
        return index, queries, (folder, folder / "index.csv", folder / "solution.csv", folder / "out")

    def test_queries_gallery_and_ground_truth_belong_together(self, tmp_path):
        index, queries, paths = self.make(tmp_path)
        list_gldv2_test(*paths)
        out = tmp_path / "out"
        loaded = load_revisited_set(out / "test_query.txt", out / "test_gallery.txt", out / "gnd_gldv2.pkl")
        assert [name[-20:-4] for name in loaded.query.names] == [queries[0], queries[2]]
        assert loaded.truth.imlist == index and loaded.gallery.names[0].startswith(f"index/{index[0][0]}/")
        assert [entry["easy"].tolist() for entry in loaded.truth.gnd] == [[3, 1], [1]]
        assert loaded.truth.gnd[0]["bbx"] == [0, 0, 20, 10] and loaded.gallery.labels.tolist() == [-1] * 6

    def test_usages_choose_the_queries(self, tmp_path):
        _, queries, paths = self.make(tmp_path)
        list_gldv2_test(*paths, usages=("Private",))
        assert load_ground_truth(tmp_path / "out" / "gnd_gldv2.pkl").qimlist == [queries[2]]

    def test_missing_pictures_leave_the_lists_and_the_ground_truth_together(self, tmp_path):
        index, _, paths = self.make(tmp_path)
        gone = tmp_path / "index" / index[1][0] / index[1][1] / index[1][2] / f"{index[1]}.jpg"
        gone.unlink()
        finished = run_tool("tools/prepare_data.py", "gldv2_test", *paths)
        assert_one_line_error(finished, "1 images cannot be read", f"{index[1]}.jpg: no such file")
        assert "2 right images are missing and not asked for" in finished.stdout
        truth = load_ground_truth(tmp_path / "out" / "gnd_gldv2.pkl")
        assert truth.imlist == index[:1] + index[2:] and [entry["easy"].tolist() for entry in truth.gnd] == [[2], []]
        assert "test_gallery.txt.skipped.csv" in files_below(tmp_path / "out")

    def test_files_of_two_releases_are_refused(self, tmp_path):
        index, _, paths = self.make(tmp_path)
        (tmp_path / "index.csv").write_text("id\n" + "\n".join(index[:2]) + "\n")
        with pytest.raises(InputError, match=f"1 right images are not in .*index.csv, first '{index[3]}'"):
            list_gldv2_test(*paths)
        assert not (tmp_path / "out").exists()
