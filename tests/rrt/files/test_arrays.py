"""Files of arrays are looked at before memory is taken for what they claim; whatever reads one says so in a line."""

import io
import zipfile

import numpy as np
import pytest

from rrt.errors import InputError
from rrt.evaluation.rankings import FILE_NAME, load_rankings
from rrt.extraction.projections import load_projections
from rrt.files.arrays import is_npz, load_npy, load_npz
from rrt.rerankers.codebook import load_codebook
from rrt.search.whitening import load_whitening
from rrt.store.arrays import import_arrays


def header(shape, descr="<f4"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def write_bomb(path, names, shape=(1000, 50_000), real=True):
    """An .npz of zeros that deflate makes a thousandth of; real: the zeros are there, else only claimed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(header(shape))
                for _ in range(shape[0] if real else 1):
                    file.write(bytes(4 * shape[1]))
    return path


def read_arrays(path):
    return import_arrays(path, path.with_name("o.h5"), image_size=(4, 4))


READERS = {
    "whitening.npz": (load_whitening, ("mean", "projection")),
    "codebook.npz": (load_codebook, ("words",)),
    "projections.npz": (load_projections, ("local_mean", "local_axes")),
    "arrays.npz": (read_arrays, ("global",)),
    FILE_NAME: (lambda path: load_rankings(path.parent), ("about", "nn_inds")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_small_file_that_claims_much_takes_no_memory(tmp_path, name, monkeypatch):
    read, names = READERS[name]
    path = write_bomb(tmp_path / name, names, (10**6, 10**6), real=False)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("memory would be taken"))
    with pytest.raises(InputError, match=rf"{name}: .*claim [0-9,]+ bytes, [0-9,]+ bytes are there"):
        read(path)


def test_zeros_that_are_there_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    path = write_bomb(tmp_path / "w.npz", ["projection"])
    assert path.stat().st_size < 300_000
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("memory would be taken"))
    with pytest.raises(ValueError, match="claim 200,000,000 bytes"):
        load_npz(path)


def test_arrays_that_shrink_well_and_small_ones_of_zeros_are_read(tmp_path):
    arrays = {"zeros": np.zeros((1000, 1000)), "positions": np.arange(10**6), "text": np.array(["a", "bc"])}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for name, array in load_npz(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(array, arrays.pop(name))
    assert not arrays and load_npz(tmp_path / "a.npz", ["text", "absent"]).keys() == {"text"}


@pytest.mark.parametrize(
    "content",
    [
        header((10**6, 10**6)),
        header((8,)) + bytes(31),
        header((1,), "|O") + b"cos\nsystem\n",
        b"\x93NUMPY\x09\x00",
        b"PK\x03\x04",
        b"",
        b"x" * 100,
    ],
)
def test_damaged_arrays_are_refused_in_one_line(tmp_path, content):
    for name in ("x.npy", "x.npz"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: "):
            read_arrays(path)


def test_objects_are_refused_with_what_to_save_instead(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["a", None]), **{"global": np.eye(2)})
    with pytest.raises(InputError, match=r"array names is of Python objects; save .*names with \.astype\(str\)"):
        read_arrays(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([{}, []], dtype=object))
    with pytest.raises(InputError, match="the array is of Python objects"):
        read_arrays(tmp_path / "a.npy")


def test_a_plain_array_is_read_or_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    np.testing.assert_array_equal(load_npy(tmp_path / "a.npy"), np.eye(3))
    assert isinstance(load_npy(tmp_path / "a.npy", "r"), np.memmap)
    np.savez(tmp_path / "b.npz", a=1)
    assert is_npz(tmp_path / "b.npz") and not is_npz(tmp_path / "a.npy")
