"""DelfConfig files and PCA: defaults, presets and numbers of the published programs; what is wrong is named in one
line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from delg_golden import golden_pca
from mutations import mutations

from delg_extract.extraction.delf_config import preset_settings, read_delf_config
from delg_extract.extraction.pca import Pca, read_pca
from delg_extract.extraction.settings import PRESETS, ExtractionSettings
from rrt.errors import InputError
from rrt.formats.delf import write_datum

# As docs/delg.md 5.2 describes the published files.
DELG = """# DELG, GLDv2-clean
model_path: "parameters/r50delg_gldv2clean_20200914"
image_scales: .25
image_scales: .35355338
image_scales: [0.5, 0.70710677, 1.0, 1.4142135, 2.0]
use_local_features: true use_global_features: true
max_image_size: 1024
delf_local_config { use_pca: false max_feature_num: 1000 score_threshold: 454.6 }
delf_global_config { use_pca: false image_scales_ind: 3 image_scales_ind: 4 image_scales_ind: 5 }
"""
DELF = """model_path: "parameters/delf_gld_20190411/model/"
image_scales: [.25, .3536, .5, .7071, 1.0, 1.4142, 2.0]
delf_local_config {
  use_pca: true
  layer_name: "resnet_v1_50/block3"
  iou_threshold: 1.0
  max_feature_num: 1000
  score_threshold: 100.0
  pca_parameters { mean_path: "pca/mean.datum" projection_matrix_path: "pca/pca_proj_mat.datum" pca_dim: 40
  use_whitening: false }
}
"""


def written(folder, text, name="config.pbtxt"):
    path = folder / name
    path.write_text(text)
    return path


def write_pca_files(folder, size=64, rows=64, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "mean": rng.standard_normal(size),
        "pca_proj_mat": rng.standard_normal((rows, size)),
        "variances": rng.uniform(0.5, 2, rows),
    }
    for name, array in arrays.items():
        write_datum(folder / f"{name}.datum", array)
    return {name: np.float32(array) for name, array in arrays.items()}


class TestPresets:
    def test_the_four_published_delg_configurations_differ_in_model_and_threshold_alone(self):
        expected = {
            "r50_gldv1": (175.0, "r50delg_gld_20200814"),
            "r101_gldv1": (166.1, "r101delg_gld_20200814"),
            "r50_gldv2": (454.6, "r50delg_gldv2clean_20200914"),
            "r101_gldv2": (357.48, "r101delg_gldv2clean_20200914"),
        }
        assert {name: (PRESETS[name].settings.score_threshold, PRESETS[name].model) for name in expected} == expected
        assert len({replace(PRESETS[name].settings, score_threshold=0) for name in expected}) == 1

    def test_the_configuration_file_of_a_preset_gives_its_settings(self, tmp_path):
        found = read_delf_config(written(tmp_path, DELG))
        assert found.settings == PRESETS["r50_gldv2"].settings
        assert found.settings.as_json() == PRESETS["r50_gldv2"].settings.as_json()
        assert str(found.model_path) == f"parameters/{PRESETS['r50_gldv2'].model}"

    def test_the_global_preset_uses_all_its_scales_and_no_local_features(self):
        settings = PRESETS["rn101_af_gldv2"].settings
        assert settings.global_positions == (0, 1, 2) and not settings.use_local

    @pytest.mark.parametrize("folder", [".", "pca", "..", "../pca"])
    def test_the_preset_of_delf_takes_the_pca_published_with_its_model(self, tmp_path, folder):
        model = tmp_path / "delf_gld_20190411/model"
        model.mkdir(parents=True)
        (model / folder).mkdir(exist_ok=True)
        arrays = write_pca_files(model / folder)
        settings = preset_settings("delf_gld", model)
        assert settings.local_pca == Pca(arrays["mean"], arrays["pca_proj_mat"], 40)
        assert settings == read_delf_config(written(model, DELF.replace("pca/", f"{folder}/"))).settings
        assert (settings.max_image_size, settings.min_image_size, settings.score_threshold) == (-1, -1, 100)

    def test_a_preset_without_its_pca_files_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no mean.datum"):
            preset_settings("delf_gld", tmp_path)
        assert preset_settings("r50_gldv1", tmp_path) == PRESETS["r50_gldv1"].settings


class TestSettingsRecord:
    def test_every_setting_is_in_the_record_and_the_record_is_json(self, tmp_path):
        pca = golden_pca(tmp_path, True)
        settings = ExtractionSettings(local_pca=pca)
        record = settings.as_json()
        assert record.keys() == ExtractionSettings.__dataclass_fields__.keys()
        assert json.loads(json.dumps(record)) == record
        assert record["local_pca"] == {"dim": 2, "sha256": pca.sha256} and record["global_pca"] is None

    @pytest.mark.parametrize(
        "change",
        [
            {"scales": (1.0,)},
            {"global_scales": ()},
            {"max_features": 5},
            {"use_local": False},
            {"global_pca": Pca(np.zeros(2), np.eye(2), 1)},
        ],
    )
    def test_a_changed_setting_changes_the_record(self, change):
        assert replace(ExtractionSettings(), **change).as_json() != ExtractionSettings().as_json()


class TestReading:
    def test_what_is_left_out_takes_the_defaults_of_the_format(self, tmp_path):
        found = read_delf_config(
            written(tmp_path, "model_path: 'm' image_scales: 1 delf_local_config { use_pca: false }")
        )
        assert found.settings == ExtractionSettings(
            scales=(1.0,),
            global_scales=(),
            max_features=1000,
            score_threshold=100.0,
            max_image_size=-1,
            min_image_size=-1,
            square_images=False,
            resized_coordinates=False,
            use_local=True,
            use_global=False,
        )
        assert (found.layer_name, found.settings.iou_threshold, found.is_tf2_exported) == ("", 1.0, False)

    def test_every_field_arrives(self, tmp_path):
        write_pca_files(tmp_path, 8, 6)
        parameters = (
            "pca_parameters { mean_path: 'mean.datum' projection_matrix_path: 'pca_proj_mat.datum' pca_dim: %d "
            "use_whitening: %s pca_variances_path: 'variances.datum' }"
        )
        found = read_delf_config(
            written(
                tmp_path,
                f"""
            model_path: "m" image_scales: [0.5, 1] max_image_size: 800 min_image_size: 400 use_square_images: true
            use_local_features: true use_global_features: true is_tf2_exported: true
            delf_local_config < use_pca: true layer_name: "block3" iou_threshold: 0.7 max_feature_num: 9
                score_threshold: 0.1 use_resized_coordinates: true {parameters % (3, "true")} >
            delf_global_config {{ {parameters % (4, "false")} image_scales_ind: 1 }}""",
            )
        )
        expected = ExtractionSettings(
            scales=(0.5, 1.0),
            global_scales=(1,),
            max_features=9,
            score_threshold=0.1,
            iou_threshold=0.7,
            max_image_size=800,
            min_image_size=400,
            square_images=True,
            resized_coordinates=True,
            local_pca=read_pca(
                tmp_path / "mean.datum", tmp_path / "pca_proj_mat.datum", 3, tmp_path / "variances.datum"
            ),
            global_pca=read_pca(tmp_path / "mean.datum", tmp_path / "pca_proj_mat.datum", 4),
        )
        assert found.settings == expected
        assert (found.layer_name, found.is_tf2_exported) == ("block3", True)

    def test_single_precision_numbers_come_back_as_they_were_written(self, tmp_path):
        settings = read_delf_config(written(tmp_path, DELG)).settings
        assert (
            settings.scales == (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
            and settings.score_threshold == 454.6
        )

    def test_paths_are_relative_to_the_working_directory_and_then_to_the_file(self, tmp_path, monkeypatch):
        here, config_folder = tmp_path / "here", tmp_path / "config"
        for folder, seed in ((here, 1), (config_folder, 2)):
            (folder / "pca").mkdir(parents=True)
            write_pca_files(folder / "pca", seed=seed)
            (folder / "parameters/delf_gld_20190411/model").mkdir(parents=True)
        config = written(config_folder, DELF)
        monkeypatch.chdir(here)
        found = read_delf_config(config)
        assert found.settings.local_pca == read_pca(here / "pca/mean.datum", here / "pca/pca_proj_mat.datum", 40)
        assert found.model_path.resolve() == here / "parameters/delf_gld_20190411/model"
        monkeypatch.chdir(tmp_path)
        found = read_delf_config(config)
        assert found.settings.local_pca == read_pca(
            config_folder / "pca/mean.datum", config_folder / "pca/pca_proj_mat.datum", 40
        )
        assert found.model_path == config_folder / "parameters/delf_gld_20190411/model"

    def test_what_a_switched_off_side_lacks_is_not_asked_for(self, tmp_path):
        text = (
            "model_path: 'm' image_scales: 1 use_local_features: false use_global_features: true "
            "delf_local_config { max_feature_num: 0 } delf_global_config { use_pca: false }"
        )
        assert read_delf_config(written(tmp_path, text)).settings.global_positions == (0,)


MINIMAL = "model_path: 'm' image_scales: 1 delf_local_config { use_pca: false }"
WITH_PCA = (
    "model_path: 'm' image_scales: 1 delf_local_config { pca_parameters { mean_path: 'mean.datum' "
    "projection_matrix_path: 'pca_proj_mat.datum' pca_dim: 3 } }"
)
GLOBAL = "model_path: 'm' image_scales: [1, 2] use_local_features: false use_global_features: true "


class TestMistakes:
    @pytest.mark.parametrize(
        "text, place, what",
        [
            (
                "model_path: 'm'\nimage_scales: 1\nmax_imagesize: 5",
                ":3:",
                "DelfConfig has no field 'max_imagesize'; its fields are model",
            ),
            (
                "model_path: 'm'\ndelf_local_config {\n  use_pcaa: true }",
                ":3:",
                "DelfLocalFeatureConfig has no field 'use_pcaa'",
            ),
            ("model_path: 'm'\nimage_scales: one", ":2:", "Couldn't parse float: one; mend the line"),
            ("model_path: 'm'\nmodel_path: 'n'", ":2:", 'should not have multiple "model_path"'),
            ("model_path: 'm\nimage_scales: 1", ":1:", "missing ending quote"),
            ("delf_local_config {\n use_pca: false", ":2:", ""),
            ("model_path: '\\377'", ":1:", "Couldn't parse string"),
            ("", ":", "no model_path"),
            ("image_scales: 1", ":", "no model_path"),
            (MINIMAL.replace("image_scales: 1", ""), ":", "no image_scales"),
            (MINIMAL.replace("scales: 1", "scales: [1, 0.5, -2]"), ":", "image_scales at position 2 (from 0) is -2.0"),
            (MINIMAL.replace("scales: 1", "scales: 0"), ":", "is 0.0; give a scale above 0"),
            (MINIMAL.replace("scales: 1", "scales: nan"), ":", "is nan"),
            (MINIMAL.replace("scales: 1", "scales: 1e300"), ":", "is inf"),
            (
                MINIMAL + " use_local_features: false",
                ":",
                "use_local_features is false and use_global_features is not true",
            ),
            (MINIMAL + " max_image_size: 0", ":", "max_image_size is 0"),
            (MINIMAL + " max_image_size: 5 min_image_size: 6", ":", "min_image_size 6 is above max_image_size 5"),
            (MINIMAL.replace("{", "{ max_feature_num: 0"), ":", "delf_local_config.max_feature_num is 0"),
            (MINIMAL.replace("{", "{ score_threshold: nan"), ":", "score_threshold is nan"),
            (
                "model_path: 'm' image_scales: 1",
                ":",
                "delf_local_config.use_pca is true when left out, but delf_local_config.pca_parameters.mean_path",
            ),
            (
                WITH_PCA.replace("mean_path: 'mean.datum'", ""),
                ":",
                "delf_local_config.pca_parameters.mean_path is not given",
            ),
            (WITH_PCA.replace("pca_dim: 3", ""), ":", "pca_parameters.pca_dim is not given"),
            (
                WITH_PCA.replace("'mean.datum'", "'none.datum'"),
                ":",
                "mean_path 'none.datum' is neither below the working directory nor below",
            ),
            (WITH_PCA.replace("'mean.datum'", "'" + 300 * "x" + "'"), ":", "is neither"),
            (
                WITH_PCA.replace("pca_dim: 3", "pca_dim: 3 use_whitening: true"),
                ":",
                "use_whitening is true, but pca_variances_path is not given",
            ),
            (
                GLOBAL + "delf_global_config { use_pca: false image_scales_ind: 2 }",
                ":",
                "image_scales_ind 2 is no position among the 2",
            ),
            (GLOBAL + "delf_global_config { use_pca: false image_scales_ind: -1 }", ":", "image_scales_ind -1"),
            (
                GLOBAL,
                ":",
                "delf_global_config.use_pca is true when left out, but delf_global_config.pca_parameters.mean_path",
            ),
            (GLOBAL + "delf_global_config { use_pca: true }", ":", "delf_global_config.use_pca is true, but"),
        ],
    )
    def test_each_is_named_with_its_line_or_field(self, tmp_path, text, place, what):
        write_pca_files(tmp_path)
        path = written(tmp_path, text)
        with pytest.raises(InputError) as error:
            read_delf_config(path)
        message = str(error.value)
        assert message.startswith(f"{path}{place}") and what in message and ";" in message and "\n" not in message, (
            message
        )

    @pytest.mark.parametrize("dim", [7, -1])
    def test_more_components_than_the_matrix_has_are_refused(self, tmp_path, dim):
        write_pca_files(tmp_path, 8, 6)
        with pytest.raises(
            InputError, match=f"pca_proj_mat.datum: holds 6 components, {dim} are asked for; set pca_dim to 1 to 6"
        ):
            read_delf_config(written(tmp_path, WITH_PCA.replace("pca_dim: 3", f"pca_dim: {dim}")))

    @pytest.mark.parametrize("content, what", [(None, "No such file"), (b"\xff\xfe\x00\x80", "not a text file")])
    def test_what_is_no_text_file_is_refused(self, tmp_path, content, what):
        path = tmp_path / "config.pbtxt"
        if content:
            path.write_bytes(content)
        with pytest.raises(InputError, match=what):
            read_delf_config(path)

    @pytest.mark.parametrize("text", [DELG, WITH_PCA])
    def test_a_damaged_file_is_read_or_refused_in_one_line(self, tmp_path, text):
        write_pca_files(tmp_path)
        path, refused = tmp_path / "config.pbtxt", 0
        for damaged in mutations(text.encode(), 150, seed=len(text)):
            path.write_bytes(damaged)
            try:
                read_delf_config(path)
            except InputError as error:
                refused += 1
                assert str(error).startswith(str(tmp_path)) and "\n" not in str(error) and len(str(error)) < 1000, error
        assert 0 < refused <= 150


def test_a_byte_order_mark_of_an_editor_is_no_part_of_a_configuration(tmp_path):
    text = 'model_path: "m"\nimage_scales: 1.0\ndelf_local_config { use_pca: false }\n'
    path, read = tmp_path / "c.pbtxt", []
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding=encoding)
        read.append(read_delf_config(path))
    assert repr(read[0]) == repr(read[1])
