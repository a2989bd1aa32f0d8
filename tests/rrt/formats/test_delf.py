"""rrt/formats/delf.py: the bytes of the published programs, and a fast reader that agrees with protobuf's own."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN

import rrt.formats.delf as delf_files
from rrt.errors import InputError
from rrt.formats.delf import (
    LocalFeatures,
    parse_datum,
    parse_features,
    parse_features_by_messages,
    read_datum,
    read_features,
    serialize_datum,
    serialize_features,
    write_datum,
)

BYTES = json.loads((GOLDEN / "delg" / "shared" / "golden_bytes.json").read_text())
FLOATS = st.floats(width=32)


def golden_messages(kind):
    return [pytest.param(entry, id=entry["note"]) for entry in BYTES["messages"] if entry["kind"] == kind]


def random_features(count, dim, seed=0):
    generator = np.random.default_rng(seed)
    return LocalFeatures(
        *(
            generator.standard_normal(shape).astype(np.float32)
            for shape in ((count, dim), (count, 2), count, count, count)
        )
    )


def assert_equal(found, expected):
    for name, array in vars(expected).items():
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


@pytest.fixture
def fast_only(monkeypatch):
    """The reader by messages is not to be used."""
    monkeypatch.setattr(delf_files, "parse_features_by_messages", None)


@pytest.mark.parametrize("entry", golden_messages("DatumProto"))
def test_golden_bytes_of_arrays(entry):
    array = np.array(entry["values"], entry["dtype"]).reshape(entry["shape"])
    assert serialize_datum(array).hex() == entry["hex"]
    found = parse_datum(bytes.fromhex(entry["hex"]))
    assert found.dtype == (np.float32 if array.dtype.kind == "f" else np.uint32)
    np.testing.assert_array_equal(found, array.astype(found.dtype))


@pytest.mark.parametrize("entry", golden_messages("DelfFeatures"))
def test_golden_bytes_of_features(entry):
    count = len(entry["scales"])
    features = LocalFeatures(
        np.float32(entry["descriptors"]),
        np.float32(entry["locations_yx"])[:, ::-1],
        np.float32(entry["scales"]),
        np.float32(entry["attention"]),
        np.float32(entry["orientations"] or np.zeros(count)),
    )
    assert serialize_features(features).hex() == entry["hex"]
    for parse in (parse_features, parse_features_by_messages):
        assert_equal(parse(bytes.fromhex(entry["hex"])), features)


@pytest.mark.parametrize("dtype", [dtype for dtype, _ in BYTES["rejected_dtypes"]])
def test_types_that_the_published_program_rejects_are_rejected(dtype):
    with pytest.raises(ValueError, match=dtype):
        serialize_datum(np.zeros(2, dtype))


def test_integers_above_32_bits_are_rejected():
    with pytest.raises(ValueError):
        serialize_datum(np.uint64([2**32]))


@pytest.mark.parametrize("folder", ["legacy_mini/delg_r50_gldv2", "delg/seed1"])
def test_golden_files_are_read_fast_and_written_with_the_same_bytes(folder, fast_only):
    paths = sorted((GOLDEN / folder).glob("*.delg_local"))
    assert paths
    for path in paths:
        assert serialize_features(read_features(path)) == path.read_bytes()
        partner = path.with_suffix(".delg_global")
        assert serialize_datum(read_datum(partner)) == partner.read_bytes()


def test_real_delf_files_are_read_fast_and_written_with_the_same_bytes(shared_data):
    paths = sorted((shared_data / "delf_files").glob("*.delf"))
    assert len(paths) == 4
    for path in paths:
        features = read_features(path)
        assert features.descriptors.shape == (1000, 40)
        np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
        assert serialize_features(features) == path.read_bytes()
        assert_equal(features, parse_features_by_messages(path.read_bytes()))


@settings(max_examples=40)
@given(st.integers(0, 5), st.integers(1, 40), st.data())
def test_features_are_written_as_protobuf_does_and_read_back_to_the_last_bit(count, dim, data):
    def array(*shape):
        values = data.draw(st.lists(FLOATS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return np.array(values, np.float32).reshape(shape)

    features = LocalFeatures(array(count, dim), array(count, 2), array(count), array(count), array(count))
    message = delf_files._CLASSES["DelfFeatures"]()
    for i in range(count):
        feature = message.feature.add(
            x=features.keypoints[i, 0],
            y=features.keypoints[i, 1],
            scale=features.scales[i],
            orientation=features.orientations[i],
            strength=features.attention[i],
        )
        feature.descriptor.shape.dim.append(dim)
        feature.descriptor.float_list.value.extend(features.descriptors[i].tolist())
    written = serialize_features(features)
    assert written == message.SerializeToString()
    found = parse_features(written)
    assert serialize_features(found) == written
    assert_equal(found, parse_features_by_messages(written))
    assert found.descriptors.shape == (count, dim if count else 0)


def outcome(parse, data):
    """The arrays, or that there are none; any other exception than ValueError fails the test."""
    try:
        return parse(data)
    except ValueError:
        return None


@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), max_size=3),
    st.integers(0, 10**6),
)
def test_fast_and_slow_reading_agree_on_damaged_files(count, dim, changes, cut):
    data = bytearray(serialize_features(random_features(count, dim)))
    for place, replacement in changes:
        place %= len(data)
        data[place : place + len(replacement)] = replacement
    data = bytes(data[: -(cut % len(data))] if cut % 3 else data)
    fast, slow = outcome(parse_features, data), outcome(parse_features_by_messages, data)
    assert (fast is None) == (slow is None)
    if fast:
        assert_equal(fast, slow)


@given(st.binary(max_size=60))
def test_garbage_is_read_or_refused_but_never_crashes(data):
    for parse in (parse_features, parse_datum):
        outcome(parse, data)


def field(number, content):
    """A length-delimited field of less than 128 bytes, or of a float."""
    if isinstance(content, bytes):
        return bytes([number << 3 | 2, len(content)]) + content
    return bytes([number << 3 | 5]) + np.float32(content).tobytes()


def feature_bytes(values, packed=True, shape=True, backwards=False, **numbers):
    """A DelfFeature in a layout of choice: floats one by one, no shape, fields in another order, some left out."""
    values = np.float32(values)
    floats = field(1, values.tobytes()) if packed else b"".join(field(1, value) for value in values)
    datum = (field(1, field(1, bytes([len(values)]))) if shape else b"") + field(2, floats)
    places = {"x": 2, "y": 3, "scale": 4, "orientation": 5, "strength": 6}
    fields = [field(1, datum), *(field(places[name], value) for name, value in numbers.items())]
    return field(1, b"".join(fields[::-1] if backwards else fields))


class TestOtherLayouts:
    """What the wire format allows but no published program writes."""

    @settings(max_examples=40)
    @given(
        st.lists(
            st.tuples(
                st.lists(FLOATS, min_size=2, max_size=2),
                st.booleans(),
                st.booleans(),
                st.booleans(),
                st.dictionaries(st.sampled_from(["x", "y", "scale", "orientation", "strength"]), FLOATS),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_every_layout_gives_the_values_and_zero_for_what_is_absent(self, entries):
        data = b"".join(
            feature_bytes(values, packed, shape, backwards, **numbers)
            for values, packed, shape, backwards, numbers in entries
        )
        numbers = np.float32(
            [[entry[4].get(name, 0) for name in ("x", "y", "scale", "strength", "orientation")] for entry in entries]
        )
        expected = LocalFeatures(np.float32([entry[0] for entry in entries]), numbers[:, :2], *numbers[:, 2:].T)
        assert_equal(parse_features(data), expected)

    def test_an_odd_feature_among_regular_ones_is_read(self):
        regular = random_features(3, 2)
        data = serialize_features(regular)
        size = len(data) // 3
        swapped = data[:size] + feature_bytes([7, 8], backwards=True, x=1, y=2, scale=3, orientation=4, strength=5)
        assert len(swapped) == 2 * size, "the same length, so that only the tags tell"
        found = parse_features(swapped + data[2 * size :])
        np.testing.assert_array_equal(found.descriptors, [regular.descriptors[0], [7, 8], regular.descriptors[2]])
        np.testing.assert_array_equal(found.keypoints[1], [1, 2])

    def test_unknown_fields_are_passed_over(self):
        features = random_features(2, 3)
        assert_equal(parse_features(serialize_features(features) + field(9, b"later")), features)
        one = feature_bytes([1, 2]) + b"\x0a\x07" + field(8, b"later")
        with pytest.raises(ValueError, match="feature 1 has 0 values, the first has 2"):
            parse_features(one)

    def test_descriptors_of_whole_numbers_are_read(self):
        datum = field(1, field(1, b"\x03")) + field(3, field(1, b"\x01\x00\x07"))
        np.testing.assert_array_equal(parse_features(field(1, field(1, datum))).descriptors, [[1, 0, 7]])

    def test_an_array_without_shape_is_flat(self):
        np.testing.assert_array_equal(parse_datum(field(2, field(1, np.float32([1, 2]).tobytes()))), [1, 2])

    @pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 4)])
    def test_arrays_keep_their_shape(self, shape):
        array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        found = parse_datum(serialize_datum(array))
        assert found.shape == shape
        np.testing.assert_array_equal(found, array)


def test_a_file_without_features_is_valid(tmp_path):
    assert serialize_features(random_features(0, 128)) == b""
    (tmp_path / "a.delg_local").touch()
    assert read_features(tmp_path / "a.delg_local").descriptors.shape == (0, 0)


def test_features_that_do_not_fit_together_are_refused():
    features = random_features(3, 4)
    for wrong in (
        replace(features, scales=np.zeros(2)),
        replace(features, keypoints=np.zeros((4, 2))),
        replace(features, descriptors=np.zeros((3, 0))),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            serialize_features(wrong)


class TestDamage:
    def test_a_cut_is_found_wherever_it_is_not_between_two_features(self):
        data = serialize_features(random_features(3, 2))
        between = {0, len(data) // 3, 2 * len(data) // 3}
        assert {end for end in range(len(data)) if outcome(parse_features, data[:end])} == between
        data = serialize_datum(np.ones(3))
        assert not any(outcome(parse_datum, data[:end]) is not None for end in range(len(data)))

    @pytest.mark.parametrize(
        "data",
        [
            b"\x0a\xff\xff\xff\xff\x07",
            b"\x0a\xff\xff\xff\xff\x0f" + bytes(50),
            b"\x0a" + b"\xff" * 20,
            serialize_features(random_features(1, 2)).replace(b"\x0a\x08", b"\x0a\x7f"),
            field(1, field(1, field(1, field(1, b"\xff\xff\xff\xff\x07")) + field(2, field(1, bytes(8))))),
            field(1, field(1, b"\x80\x80\x80\x80\x80\x80\x80\x40" * 8)) + field(2, field(1, bytes(8))),
            field(1, field(1, b"\x00" + b"\xff" * 8 + b"\x7f")) + field(2, b""),
            field(1, field(1, b"\xff" * 9 + b"\x01")) + field(2, field(1, bytes(4))),
        ],
    )
    def test_a_length_of_gigabytes_takes_no_memory(self, data):
        tracemalloc.start()
        try:
            for parse in (parse_features, parse_datum):
                outcome(parse, data)
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "read, content, what",
        [
            (read_features, None, "cannot be read (No such file or directory)"),
            (read_datum, None, "cannot be read (No such file or directory)"),
            (read_features, b"text, not features", "cut short, damaged or not a DELF"),
            (read_features, field(9, b"else"), "holds no features but other data"),
            (
                read_features,
                feature_bytes([1, 2]) + feature_bytes([1, 2, 3]),
                "feature 1 has 3 values, the first has 2",
            ),
            (read_features, feature_bytes([]), "feature 0 has 0 values"),
            (read_features, serialize_datum(np.ones(2048)), ""),
            (read_datum, b"", "holds no array"),
            (read_datum, serialize_features(random_features(2, 128)), ""),
            (read_datum, field(1, field(1, b"\x05")) + field(2, field(1, bytes(8))), "2 values for the shape [5]"),
            (read_datum, field(1, field(1, bytes(17))) + field(2, b""), "0 values for the shape [0, 0,"),
        ],
    )
    def test_an_unusable_file_is_named_in_one_line(self, tmp_path, read, content, what):
        path = tmp_path / "picture.delg"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(f"{path}: ") and what in message and "\n" not in message


def test_arrays_are_written_whole_to_files(tmp_path):
    write_datum(tmp_path / "mean.datum", np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read_datum(tmp_path / "mean.datum"), np.arange(6.0).reshape(2, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["mean.datum"]
