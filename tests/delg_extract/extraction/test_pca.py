"""Principal components as DELF applies them: equal to the reference's numbers, and read from its files."""

import json

import numpy as np
import pytest
from delg_golden import GOLDEN_PCA, golden_pca

from delg_extract.extraction.extractor import Extractor, LocalAndGlobal
from delg_extract.extraction.pca import Pca, read_pca
from delg_extract.extraction.settings import ExtractionSettings
from rrt.errors import InputError
from rrt.formats.delf import write_datum
from rrt.store.linear import l2_normalize


class TestPca:
    @pytest.mark.parametrize("suffix", ["", "_whitened"])
    def test_projections_equal_the_reference(self, tmp_path, suffix):
        pca, data = golden_pca(tmp_path, bool(suffix)), np.float32(GOLDEN_PCA["data"])
        np.testing.assert_allclose(pca.rotate(data), GOLDEN_PCA[f"projected{suffix}"], atol=1e-6)
        np.testing.assert_allclose(pca.project(data), GOLDEN_PCA[f"postprocess_l2_pca_l2{suffix}"], atol=1e-6)
        assert pca.project(data).dtype == np.float32

    def test_the_extractor_projects_local_descriptors_and_each_scale_of_the_global_one_before_the_sum(self, tmp_path):
        pca, data = golden_pca(tmp_path, True), np.float32(GOLDEN_PCA["data"])
        out = LocalAndGlobal(
            np.zeros((4, 4), np.float32), 3 * data, np.ones(4, np.float32), np.ones(4, np.float32), 7 * data[:3]
        )

        class Fixed:
            def local_and_global(self, images, settings):
                return [out]

        found = Extractor(Fixed(), ExtractionSettings(local_pca=pca, global_pca=pca))(np.zeros((20, 20, 3), np.uint8))
        expected = np.array(GOLDEN_PCA["postprocess_l2_pca_l2_whitened"])
        np.testing.assert_allclose(found.descriptors, expected, atol=1e-6)
        total = expected[:3].sum(0)
        np.testing.assert_allclose(found.global_descriptor, total / np.linalg.norm(total), atol=1e-6)
        plain = Extractor(Fixed())(np.zeros((20, 20, 3), np.uint8))
        np.testing.assert_allclose(plain.descriptors, GOLDEN_PCA["postprocess_l2_only"], atol=1e-6)

    def test_a_image_without_features_has_none_of_the_projected_size(self, tmp_path):
        pca = golden_pca(tmp_path, False)
        assert (
            pca.project(np.empty((0, 3), np.float32)).shape == pca.project(np.empty((0, 0), np.float32)).shape == (0, 2)
        )

    def test_another_descriptor_size_is_refused_in_one_line(self, tmp_path):
        with pytest.raises(InputError, match="of 3 dimensions, the model gives 4"):
            golden_pca(tmp_path, False).project(np.ones((2, 4), np.float32))

    def test_two_are_equal_exactly_when_the_numbers_they_use_are(self):
        rng = np.random.default_rng(0)
        mean, matrix, variances = rng.random(5, np.float32), rng.random((4, 5), np.float32), np.float32([4, 3, 2, 1])
        pca = Pca(mean, matrix, 2, variances)
        assert pca == Pca(mean.copy(), matrix[:3], 2, variances[:2]) and hash(pca) == hash(
            Pca(mean, matrix[:2], 2, variances)
        )
        others = [
            Pca(mean, matrix, 3, variances),
            Pca(mean, matrix, 2),
            Pca(mean + 1e-6, matrix, 2, variances),
            Pca(mean, matrix * 2, 2, variances),
            Pca(mean, matrix, 2, variances + 1),
        ]
        assert len({pca, *others}) == 6 and len({json.dumps(p.as_json()) for p in (pca, *others)}) == 6

    @pytest.mark.parametrize(
        "change, file, what",
        [
            ({"mean": np.ones(5)}, "matrix.datum", "shape [3, 3] does not fit the 5 values"),
            ({"matrix": np.ones(9)}, "matrix.datum", "shape [9]"),
            ({"matrix": np.ones((1, 3))}, "matrix.datum", "holds 1 components, 2 are asked for"),
            ({"variances": np.ones(1)}, "variances.datum", "needs 2 variances"),
            ({"variances": np.array([1.0, 0.0])}, "variances.datum", "above zero"),
            ({"mean": np.array([1, np.nan, 1])}, "mean.datum", "not finite"),
        ],
    )
    def test_files_that_do_not_fit_are_named(self, tmp_path, change, file, what):
        for name, array in {"mean": np.ones(3), "matrix": np.eye(3), "variances": np.ones(2), **change}.items():
            write_datum(tmp_path / f"{name}.datum", array)
        with pytest.raises(InputError) as error:
            read_pca(tmp_path / "mean.datum", tmp_path / "matrix.datum", 2, tmp_path / "variances.datum")
        assert str(error.value).startswith(str(tmp_path / file)) and what in str(error.value)


def test_pca_files_of_ones_own_whiten_what_they_were_learned_on(tmp_path):
    """The way a user makes them: components and variances of the covariance; whitened components then have unit
    variance."""
    rng = np.random.default_rng(0)
    descriptors = l2_normalize(np.float32(rng.standard_normal((500, 6)) * [5, 4, 3, 2, 1, 1] + 1))
    variances, vectors = np.linalg.eigh(np.cov(descriptors, rowvar=False))
    arrays = {"mean": descriptors.mean(0), "matrix": vectors.T[::-1], "variances": variances[::-1]}
    for name, array in arrays.items():
        write_datum(tmp_path / f"{name}.datum", np.float32(array))
    pca = read_pca(tmp_path / "mean.datum", tmp_path / "matrix.datum", 4, tmp_path / "variances.datum")
    np.testing.assert_allclose(np.cov(pca.rotate(descriptors), rowvar=False), np.eye(4), atol=1e-4)
