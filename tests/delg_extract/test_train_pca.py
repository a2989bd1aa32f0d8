"""PCA of local descriptors: learned from images or a store, the numbers of a singular value decomposition, applied at
extraction."""

import os
import sys

import delg_exports as exports
import numpy as np
import pytest
from builders import make_store
from commands import error_of, files_below, kill_tool_when
from PIL import Image
from tiny_delg import TINY

from delg_extract import extract, match_images, train_pca
from delg_extract.data.moments import Moments
from delg_extract.extraction.delf_config import read_delf_config
from delg_extract.extraction.pca import read_pca_folder, write_pca_folder
from delg_extract.network.model import BACKBONES, Delg
from delg_extract.network.weights import save_weights
from rrt.formats.delf import read_datum
from rrt.formats.lists import write_image_list
from rrt.store.linear import l2_normalize
from rrt.store.store import Store

pytestmark = pytest.mark.usefixtures("opened_once")

FILES = ["mean.datum", "pca_proj_mat.datum", "pca_variances.datum", "settings.json"]


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with exports.tiny_backbone():
        yield


@pytest.fixture
def weights(pictures):
    return save_weights(pictures / "weights.h5", exports.tiny_model())


def run(main, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    return main()


def learning(pictures, weights, *more):
    """Arguments of a run that learns 5 components from the images of the fixture ``pictures``."""
    return [
        "--model",
        weights,
        "--train_list",
        pictures / "train.txt",
        "--image_dir",
        pictures,
        "--output_dir",
        pictures / "pca",
        "--num_workers",
        "1",
        "--pca_dim",
        "5",
        *more,
    ]


def extraction(pictures, weights, name, *more):
    return [
        "--model",
        weights,
        "--list",
        pictures / "train.txt",
        "--image_dir",
        pictures,
        "--output",
        pictures / name,
        "--num_workers",
        "1",
        "--local_dtype",
        "float32",
        *more,
    ]


def rows_of(store_path):
    with Store(store_path) as store:
        return l2_normalize(
            np.concatenate([store.read(i).descriptors for i in range(store.num_images)]).astype(np.float64)
        )


def assert_decomposed(folder, rows, dim, atol=1e-6):
    """The files of ``folder`` are the singular value decomposition of the rows; ``atol``: 1e-4 when they were learned
    from float16."""
    mean, matrix, variances = (read_datum(folder / name) for name in FILES[:3])
    assert (mean.shape, matrix.shape, variances.shape) == ((rows.shape[1],), (dim, rows.shape[1]), (dim,))
    _, singular, components = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert np.allclose(mean, rows.mean(0), atol=atol)
    assert np.allclose(variances, singular[:dim] ** 2 / (len(rows) - 1), rtol=1e-3)
    assert np.allclose(np.abs((matrix * components[:dim]).sum(1)), 1, atol=1e-4)
    assert (np.diff(variances) <= 0).all() and (variances > 0).all()
    assert (matrix[np.arange(dim), np.abs(matrix).argmax(1)] > 0).all()


def test_moments_of_any_division_give_the_singular_value_decomposition_of_all_rows():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((9000, 12)) @ rng.standard_normal((12, 12)) + 3
    mean, variances, components = None, None, None
    for cuts in ([], [1, 5, 8999], list(range(100, 9000, 100))):
        moments = Moments(12)
        for part in np.split(rows.astype(np.float32), cuts):
            moments.add(part)
        mean, variances, components = moments.principal_components()
        _, singular, expected = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        assert np.allclose(mean, rows.mean(0), atol=1e-6) and np.allclose(variances, singular**2 / 8999, rtol=1e-5)
        assert np.allclose(np.abs((components * expected).sum(1)), 1, atol=1e-6)
        assert np.allclose(components @ components.T, np.eye(12), atol=1e-12)


def test_a_store_gives_the_components_of_its_descriptors_at_unit_length(tmp_path, monkeypatch, capsys):
    make_store(tmp_path, n=12, num_local=20, local_dim=8, file_name="s.h5")
    store = tmp_path / "s.h5"
    run(train_pca.main, monkeypatch, "--store", store, "--output_dir", tmp_path / "pca", "--pca_dim", "3")
    assert_decomposed(tmp_path / "pca", rows_of(store), 3)
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'pca'}: 3 of 8 components, which hold ")
    assert files_below(tmp_path / "pca") == FILES and store.exists()
    run(
        train_pca.main,
        monkeypatch,
        "--store",
        store,
        "--output_dir",
        tmp_path / "few",
        "--pca_dim",
        "3",
        "--num_pictures",
        "5",
    )
    assert not np.allclose(read_datum(tmp_path / "few/mean.datum"), read_datum(tmp_path / "pca/mean.datum"), atol=1e-5)


def test_descriptors_of_the_store_are_the_components_at_unit_length(pictures, weights, monkeypatch, capsys):
    run(train_pca.main, monkeypatch, *learning(pictures, weights))
    assert files_below(pictures / "pca") == FILES
    run(extract.main, monkeypatch, *extraction(pictures, weights, "plain.h5"))
    assert_decomposed(pictures / "pca", rows_of(pictures / "plain.h5"), 5, atol=1e-4)
    for name, flags, dim, whitening in (
        ("five.h5", [], 5, False),
        ("three.h5", ["--pca_dim", 3, "--pca_whitening"], 3, True),
    ):
        run(extract.main, monkeypatch, *extraction(pictures, weights, name, "--pca_dir", pictures / "pca", *flags))
        pca = read_pca_folder(pictures / "pca", dim, whitening)
        with Store(pictures / "plain.h5") as plain, Store(pictures / name) as projected:
            assert projected.local_dim == dim and projected.config["local_pca"] == pca.as_json()
            assert np.array_equal(projected.global_descriptors, plain.global_descriptors)
            for i in range(plain.num_images):
                ours = projected.read(i).descriptors
                assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
                assert np.allclose(ours, pca.project(plain.read(i).descriptors), atol=1e-5)
    capsys.readouterr()
    run(train_pca.main, monkeypatch, *learning(pictures, weights))
    assert "complete, nothing to do" in capsys.readouterr().out
    assert "made with pca_dim = 5, now it is 4" in error_of(
        train_pca.main, learning(pictures, weights, "--pca_dim", "4"), monkeypatch, capsys
    )
    error = error_of(extract.main, extraction(pictures, weights, "five.h5"), monkeypatch, capsys)
    assert "local_pca" in error, error
    assert "projected already" in error_of(
        train_pca.main,
        ["--store", pictures / "five.h5", "--output_dir", pictures / "again", "--pca_dim", "2"],
        monkeypatch,
        capsys,
    )


def test_a_configuration_file_that_names_the_files_means_the_same_projection(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pca").mkdir()
    write_pca_folder(tmp_path / "pca", rng.random(8), rng.random((5, 8)), np.arange(5, 0, -1.0))
    (
        tmp_path / "c.pbtxt"
    ).write_text(f'''model_path: "m" image_scales: 1 delf_local_config {{ use_pca: true pca_parameters {{
        mean_path: "{tmp_path}/pca/mean.datum" projection_matrix_path: "{tmp_path}/pca/pca_proj_mat.datum" pca_dim: 4
        use_whitening: true pca_variances_path: "{tmp_path}/pca/pca_variances.datum" }} }}''')
    assert read_delf_config(tmp_path / "c.pbtxt").settings.local_pca == read_pca_folder(
        tmp_path / "pca", 4, whitening=True
    )


def test_the_sample_is_kept_when_asked_for_and_scales_need_no_global_ones(pictures, weights, monkeypatch):
    run(
        train_pca.main,
        monkeypatch,
        *learning(pictures, weights, "--num_pictures", "3", "--keep_store", "--scales", "1", "2"),
    )
    with Store(pictures / "pca/descriptors.h5") as store:
        assert (store.num_images, store.local_dim, store.global_dim) == (3, 24, 0)
        assert store.config["scales"] == [1.0, 2.0] and not store.config["use_global"]
    assert_decomposed(pictures / "pca", rows_of(pictures / "pca/descriptors.h5"), 5)


def test_the_preset_of_delf_needs_no_published_components_where_own_ones_are_learned_or_given(
    pictures, weights, monkeypatch
):
    run(train_pca.main, monkeypatch, *learning(pictures, weights, "--preset", "delf_gld"))
    run(
        extract.main,
        monkeypatch,
        *extraction(pictures, weights, "x.h5", "--preset", "delf_gld", "--pca_dir", pictures / "pca"),
    )
    with Store(pictures / "x.h5") as store:
        assert (store.local_dim, store.global_dim, store.config["max_image_size"]) == (5, 0, -1)


def test_images_are_matched_by_projected_descriptors(pictures, weights, monkeypatch, capsys):
    rng, folder = np.random.default_rng(0), pictures / "pca"
    folder.mkdir()
    write_pca_folder(
        folder, rng.random(24) / 24, np.linalg.qr(rng.standard_normal((24, 24)))[0], np.arange(24, 0, -1.0)
    )
    asked = [
        "p0.jpg",
        "p1.jpg",
        "--image_dir",
        pictures,
        "--model",
        weights,
        "--border",
        "0",
        "--output",
        pictures / "m.png",
    ]
    found = {}
    for name, flags in (("plain", []), ("projected", ["--pca_dir", folder, "--pca_dim", 6])):
        monkeypatch.setattr(sys, "argv", ["match_images.py", *map(str, [*asked, *flags])])
        found[name], _ = match_images.read_images(match_images.parser().parse_args())
    for plain, projected in zip(found["plain"], found["projected"]):
        pca = read_pca_folder(folder, 6)
        assert np.allclose(projected.descriptors, pca.project(plain.descriptors), atol=1e-5)
    error = error_of(match_images.main, [*asked[:4], "--store", "x.h5", "--pca_dir", folder], monkeypatch, capsys)
    assert "--pca_dir: descriptors of feature files or a store" in error


def test_wrong_input_is_one_line_and_leaves_no_components(pictures, weights, monkeypatch, capsys):
    empty, few, lists = (
        pictures / "empty.txt",
        pictures / "few",
        ["--train_list", pictures / "train.txt", "--image_dir", pictures],
    )
    empty.write_text("")
    make_store(few, n=1, num_local=3, local_dim=8, file_name="few.h5")
    make_store(few, n=3, num_local=0, local_dim=8, file_name="none.h5")
    (few / "cut.h5").write_bytes((few / "few.h5").read_bytes()[:1500])
    for arguments, words in (
        (lists, "no network to extract with"),
        (["--model", weights], "nothing to learn from"),
        (["--model", weights, "--train_list", empty, "--image_dir", pictures], "empty.txt"),
        (["--model", pictures / "no.h5", *lists], "no such weight file"),
        (["--store", few / "few.h5", "--model", weights], "one place only"),
        (
            ["--store", few / "few.h5"],
            "3 local descriptors of 8 dimensions vary in 2 directions, --pca_dim asks for 40",
        ),
        (["--store", few / "none.h5"], "0 local descriptors in 3 images"),
        (["--store", few / "no.h5"], "no.h5"),
        (["--store", few / "cut.h5"], "cut.h5"),
        (["--store", few / "few.h5", "--pca_dim", "0"], "pca_dim=0"),
        (["--store", few / "few.h5", "--num_pictures", "-1"], "num_pictures=-1"),
        (["--model", weights, *lists, "--num_workers", "-1"], "--num_workers -1"),
        (["--model", weights, *lists, "--scales", "0"], "--scales 0"),
    ):
        assert words in error_of(train_pca.main, [*arguments, "--output_dir", pictures / "pca"], monkeypatch, capsys)
        assert not (pictures / "pca").exists()
    write_pca_folder(pictures / "other", np.zeros(8), np.eye(8), np.ones(8))
    assert "did not learn" in error_of(
        train_pca.main, ["--store", few / "few.h5", "--output_dir", pictures / "other"], monkeypatch, capsys
    )


def test_a_projection_that_does_not_fit_is_refused_before_anything_is_extracted(pictures, weights, monkeypatch, capsys):
    (pictures / "empty").mkdir()
    for name, size in (("eight", 8), ("right", 24), ("cut", 24)):
        write_pca_folder(pictures / name, np.zeros(size), np.eye(size)[:6], np.arange(6, 0, -1.0))
    (pictures / "cut/pca_proj_mat.datum").write_bytes((pictures / "cut/pca_proj_mat.datum").read_bytes()[:-3])
    (pictures / "eight/pca_variances.datum").unlink()
    for flags, words in (
        (
            ["--pca_dir", pictures / "eight"],
            "eight/pca_proj_mat.datum: for descriptors of 8 dimensions, the model gives 24",
        ),
        (["--pca_dir", pictures / "eight", "--pca_whitening"], "pca_variances.datum"),
        (["--pca_dir", pictures / "right", "--pca_dim", "7"], "holds 6 components, 7 are asked for"),
        (["--pca_dir", pictures / "right", "--pca_dim", "0"], "holds 6 components, 0 are asked for"),
        (["--pca_dir", pictures / "cut"], "pca_proj_mat.datum"),
        (["--pca_dir", pictures / "empty"], "no mean.datum in it"),
        (["--pca_dir", pictures / "nowhere"], "no mean.datum in it"),
        (["--pca_dim", "40"], "--pca_dim without --pca_dir"),
        (["--pca_whitening"], "--pca_whitening without --pca_dir"),
    ):
        assert words in error_of(extract.main, extraction(pictures, weights, "x.h5", *flags), monkeypatch, capsys)
        assert not list(pictures.glob("x.h5*"))


@pytest.mark.slow
def test_a_killed_run_keeps_what_it_extracted_and_ends_with_the_components_of_all_images(tmp_path, monkeypatch, capsys):
    rng, names = np.random.default_rng(0), [f"{i}.png" for i in range(24)]
    for name in names:
        Image.fromarray(
            np.kron(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        ).save(tmp_path / name)
    write_image_list(tmp_path / "train.txt", names, np.zeros(24, int), np.full((24, 2), (160, 120)))
    monkeypatch.setitem(BACKBONES, "small", TINY)
    weights = save_weights(tmp_path / "small.h5", Delg("small", seed=1))
    run(extract.main, monkeypatch, *extraction(tmp_path, weights, "plain.h5"))
    part, pipe = tmp_path / "pca/descriptors.h5.parts/part-00000.h5", tmp_path / names[20]
    last = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)  # whoever reads it waits
    kill_tool_when(part.exists, "delg_extract/train_pca.py", *learning(tmp_path, weights), tiny_delg=True)
    assert not (tmp_path / "pca/mean.datum").exists()
    for name in (*names[:16], names[20]):  # sixteen are in the part that is there
        (tmp_path / name).unlink()
    pipe.write_bytes(last)
    capsys.readouterr()
    run(train_pca.main, monkeypatch, *learning(tmp_path, weights))
    assert "left out" not in capsys.readouterr().out
    assert files_below(tmp_path / "pca") == FILES
    assert_decomposed(tmp_path / "pca", rows_of(tmp_path / "plain.h5"), 5, atol=1e-4)
