"""Batches of training images: the fast pipeline against a slow obvious one, resuming, sharing among workers, wrong
images."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from shards import picture, write_image_shards

from delg_extract.data.batches import (
    decode,
    decode_jpeg_box,
    random_crop,
    training_batches,
    unreadable_image_named,
    validation_batches,
)
from delg_extract.data.lists import read_labelled_images
from delg_extract.data.records import read_record_images
from delg_extract.network.tensorflow import tf
from rrt.errors import InputError
from rrt.formats.lists import write_image_list

KINDS = (
    {},
    {"mode": "L"},
    {"mode": "CMYK"},
    {"kind": "PNG"},
    {"mode": "LA", "kind": "PNG"},
    {"mode": "P", "kind": "GIF"},
)


def write_list(folder, count=11, num_classes=2):
    """An image list over images of every kind and of different sizes."""
    names = [f"p{i}" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(picture(i, (30 + 7 * i, 90 - 3 * i), **KINDS[i % len(KINDS)]))
    write_image_list(folder / "train.txt", names, np.arange(count) % num_classes, np.full((count, 2), 50))
    return folder / "train.txt"


@pytest.fixture
def source(tmp_path):
    """Eleven images of two lists; those of the first are shown twice, some are for validation."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lists = [str(write_list(tmp_path / "a", 7)), str(write_list(tmp_path / "b", 4))]
    return read_labelled_images(lists, [str(tmp_path / "a"), str(tmp_path / "b")], [2, 1], validation_fraction=0.3)


def plain_batches(pictures, batch_size, size, seed, augment, area, steps):
    """The same one image after the other: decoded whole, then cropped."""
    order = [
        i for i in range(len(pictures.files)) for _ in range(0 if pictures.is_validation[i] else pictures.repeats[i])
    ]
    shown = np.concatenate(
        [
            np.random.default_rng((seed, epoch)).permutation(order)
            for epoch in range(steps * batch_size // len(order) + 1)
        ]
    )
    for step in range(steps):
        images = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            image = tf.io.decode_image(
                tf.io.read_file(pictures.files[shown[position]]), channels=3, expand_animations=False
            )
            if augment:
                begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
                    tf.shape(image),
                    tf.zeros((1, 0, 4)),
                    seed=[seed, position],
                    min_object_covered=0.1,
                    aspect_ratio_range=(3 / 4, 4 / 3),
                    area_range=area,
                    max_attempts=100,
                    use_image_if_no_bounding_boxes=True,
                )
                image = tf.image.resize(tf.slice(image, begin, extent), (size, size), method="area")
            else:
                image = tf.image.resize(image, (size, size))
            images.append((image.numpy() - 128) / 128)
        yield np.stack(images), pictures.labels[shown[step * batch_size : (step + 1) * batch_size]]


def assert_same_batches(batches, others):
    compared = 0
    for (images, labels), (other_images, other_labels) in zip(batches, others, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)
        compared += 1
    assert compared


@pytest.mark.parametrize("augment, area", [(True, (0.08, 1.0)), (True, (0.3, 0.5)), (False, None)])
def test_batches_are_those_of_one_image_after_the_other(source, augment, area):
    ours = training_batches(source, 4, 32, 7, augment, area).take(9)
    assert_same_batches(ours, plain_batches(source, 4, 32, 7, augment, area, 9))


traced_crop, traced_decode = tf.function(decode_jpeg_box), tf.function(decode)


@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_the_crop_of_a_jpeg_has_the_pixels_of_the_whole_decoded(sampling, progressive):
    rng = np.random.default_rng(progressive)
    for height, width in ((150, 200), (37, 101), (5, 9)):
        pixels = np.clip(
            cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (width, height))
            + rng.normal(0, 20, (height, width, 3)),
            0,
            255,
        )
        options = [
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}"),
            cv2.IMWRITE_JPEG_PROGRESSIVE,
            progressive,
            cv2.IMWRITE_JPEG_RST_INTERVAL,
            3,
        ]
        encoded = cv2.imencode(".jpg", pixels.astype(np.uint8), options)[1].tobytes()
        encoded, shape = tf.constant(encoded), tf.constant((height, width))
        whole = traced_decode(encoded).numpy()
        for _ in range(16):
            top, left = rng.integers(0, height), rng.integers(0, width)
            box = top, left, rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)
            part = traced_crop(encoded, shape, tf.constant(box, tf.int32)).numpy()
            np.testing.assert_array_equal(part, whole[top : top + box[2], left : left + box[3]])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_is_an_error_whichever_crop_is_drawn(progressive):
    whole = picture(0, (400, 300), progressive=progressive)
    random_crop(tf.constant(whole + b"more"), 32, tf.constant([0, 0], tf.int64))
    for size in (len(whole) - 2, len(whole) - 20, len(whole) // 2):
        for seed in range(4):
            with pytest.raises(tf.errors.InvalidArgumentError):
                random_crop(tf.constant(whole[:size]), 32, tf.constant([0, seed], tf.int64), area=(0.05, 0.1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_image_becomes_rgb(kind):
    encoded = picture(3, **kind)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_allclose(decode(encoded), expected, atol=4)  # TensorFlow's cosine transform is the fast one


@pytest.mark.parametrize("form", ["list", "records"])
def test_every_epoch_shows_every_image_as_often_as_it_should(form, source, tmp_path):
    if form == "records":
        source = read_record_images(write_image_shards(tmp_path, [5, 8]), 3)
    order = source.training_order()
    for _ in training_batches(source, len(order), 8, seed=1).take(3):
        pass
    epochs = [tuple(indices) for indices in source.recent["training"]][:3]
    assert [sorted(epoch) for epoch in epochs] == [sorted(order)] * 3 and len(set(epochs)) == 3


@pytest.mark.parametrize("form", ["list", "records"])
def test_a_resumed_run_goes_on_with_the_next_batch_and_reads_nothing_before_it(form, source, tmp_path, monkeypatch):
    if form == "records":
        source = read_record_images(write_image_shards(tmp_path, [9, 8]), 3)
    undisturbed = list(training_batches(source, 3, 32, seed=2).take(20))
    assert_same_batches(training_batches(source, 3, 32, seed=2, skip_steps=13).take(7), undisturbed[13:])
    asked, addresses = [], type(source).addresses
    monkeypatch.setattr(
        type(source), "addresses", lambda self, indices: asked.append(indices) or addresses(self, indices)
    )
    next(iter(training_batches(source, 3, 32, seed=2, skip_steps=1_000_000_000)))
    assert 1 <= len(asked) < 40


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_together_get_the_batches_of_one(workers, source):
    alone = training_batches(source, 6, 32, seed=3, skip_steps=2).take(5)
    shares = [
        training_batches(source, 6 // workers, 32, seed=3, skip_steps=2, shard=(i, workers)).take(5)
        for i in range(workers)
    ]
    joined = []
    for parts in zip(*shares, strict=True):
        images, labels = np.zeros((6, 32, 32, 3), np.float32), np.zeros(6, np.int32)
        for i, (part_images, part_labels) in enumerate(parts):
            share = slice(i * 6 // workers, (i + 1) * 6 // workers)
            images[share], labels[share] = part_images, part_labels
        joined.append((images, labels))
    assert_same_batches(alone, joined)


def test_a_batch_may_be_larger_than_an_epoch(source):
    assert_same_batches(
        training_batches(source, 40, 16, 5).take(2), plain_batches(source, 40, 16, 5, True, (0.08, 1.0), 2)
    )


def test_a_validation_pass_shows_each_image_once_whole_and_in_order(source):
    chosen = source.validation_order()
    assert 2 <= len(chosen) < len(source)
    images, labels = (np.concatenate(column) for column in zip(*validation_batches(source, 2, 24)))
    np.testing.assert_array_equal(labels, source.labels[chosen])
    for image, index in zip(images, chosen, strict=True):
        np.testing.assert_allclose(
            image, tf.image.resize((decode(source.read_checked(index)).numpy() - 128.0) / 128, (24, 24)), atol=1e-6
        )


@pytest.mark.parametrize(
    "at_most, expected",
    [(4, [0, 2, 5, 8]), (1, [0]), (11, range(11)), (99, range(11)), (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])],
)
def test_a_short_validation_is_spread_evenly(tmp_path, at_most, expected):
    source = read_record_images(write_image_shards(tmp_path, [4, 7], num_classes=11), 11)
    labels = np.concatenate([labels for _, labels in validation_batches(source, 3, 8, at_most)])
    assert labels.tolist() == list(expected)


@pytest.mark.parametrize(
    "batch_size, spoil, words",
    [
        (5, lambda file: file.write_bytes(b"no image"), "cannot be decoded"),
        (1, lambda file: file.unlink(), "No such file"),
    ],
    ids=["junk", "deleted"],
)
def test_an_unreadable_image_is_named_however_late_it_is_shown(source, tmp_path, spoil, words, batch_size):
    batches = iter(training_batches(source, batch_size, 16, seed=4, skip_steps=700))
    for _ in range(100):
        next(batches)
    spoil(tmp_path / "b" / "p2")
    with pytest.raises(InputError) as caught, unreadable_image_named(source):
        for _ in batches:
            pass
    assert str(tmp_path / "b" / "p2") in str(caught.value) and words in str(caught.value)


def test_other_errors_of_tensorflow_pass_unchanged(source):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not of an image"), unreadable_image_named(source):
        next(iter(training_batches(source, 2, 16, seed=4)))
        raise tf.errors.InvalidArgumentError(None, None, "not of an image")


def test_no_image_to_train_on_is_an_error(tmp_path):
    path = write_list(tmp_path, 4)
    with pytest.raises(InputError, match="none of the 4 images is for training"):
        training_batches(read_labelled_images([str(path)], [str(tmp_path)], validation_fraction=1.0), 2, 8, 0)


def test_kinds_that_tensorflow_cannot_decode_are_trained_on(tmp_path):
    kinds = ["TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "JPEG"]
    for kind in kinds:
        (tmp_path / kind).write_bytes(picture(1, (64, 48), kind=kind))
    write_image_list(tmp_path / "train.txt", kinds, range(6), [(64, 48)] * 6)
    source = read_labelled_images([str(tmp_path / "train.txt")], [str(tmp_path)])
    for index, kind in enumerate(kinds[:-1]):
        expected = np.asarray(Image.open(tmp_path / kind).convert("RGB"))
        assert np.array_equal(decode(source.read_checked(index)), expected), kind
    for batches in (training_batches(source, 6, 24, 1), training_batches(source, 6, 24, 1, augment=False)):
        images, labels = next(iter(batches))
        assert images.shape == (6, 24, 24, 3) and sorted(labels.numpy()) == list(range(6))


def test_a_damaged_image_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.avif").write_bytes(picture(1, (64, 48), kind="AVIF")[:200])
    (tmp_path / "b.jpg").write_bytes(picture(2, (64, 48)))
    write_image_list(tmp_path / "train.txt", ["a.avif", "b.jpg"], [0, 1], [(64, 48)] * 2)
    source = read_labelled_images([str(tmp_path / "train.txt")], [str(tmp_path)])
    with pytest.raises(InputError, match="a.avif: cannot be decoded"), unreadable_image_named(source):
        next(iter(training_batches(source, 2, 24, 1)))
