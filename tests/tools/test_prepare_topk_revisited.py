"""tools/prepare_topk_revisited.py: the published figures, and one clear line for every kind of bad input."""

import numpy as np
import pytest
from builders import copy_golden_set, make_store
from commands import assert_one_line_error, files_below, run_tool

from rrt.errors import InputError
from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.lists import read_image_list, write_image_list
from rrt.search.exact import load_globals
from rrt.search.table import load_neighbors
from rrt.search.whitening import fit_pca_whitening
from rrt.store.importing_delg import import_delg

TOOL = "tools/prepare_topk_revisited.py"


@pytest.fixture(scope="module")
def golden_set(tmp_path_factory):
    """The small published set, its feature files imported."""
    folder = copy_golden_set(tmp_path_factory.mktemp("mini"))
    import_delg(folder, "r50_gldv2")
    return folder


@pytest.fixture
def small_set(tmp_path):
    """Six random images: two queries and four in the gallery."""
    store = make_store(tmp_path, n=6)
    write_image_list(tmp_path / "test_query.txt", store.names[:2], [0, 1], [(640, 480)] * 2)
    write_image_list(tmp_path / "test_gallery.txt", store.names[2:], [0, 0, 1, 1], [(640, 480)] * 4)
    gnd = [{"bbx": [0, 0, 639, 479], "easy": easy, "hard": [], "junk": []} for easy in ([0, 1], [2, 3])]
    save_ground_truth(tmp_path / "gnd.pkl", store.names[2:], store.names[:2], gnd)
    return tmp_path


@pytest.mark.parametrize("use_aqe, prefix", [(False, "global_"), (True, "aqe_")])
def test_published_neighbours_and_figures_of_the_small_golden_set(golden_set, use_aqe, prefix):
    expected = np.load(golden_set / "expected.npz")
    ranked = prepare_topk_revisited(golden_set, "r50_gldv2", "gnd_mini.pkl", use_aqe)
    np.testing.assert_array_equal(ranked.nn_inds, expected["aqe_nn_inds" if use_aqe else "nn_inds"])
    np.testing.assert_array_equal(load_neighbors(ranked.path), ranked.nn_inds)
    if not use_aqe:
        # The golden similarities stand in gallery order.
        sims = np.take_along_axis(expected["sims"], ranked.nn_inds, axis=1)
        np.testing.assert_allclose(ranked.sims, sims, atol=1e-5)
    for protocol, result in ranked.results.items():
        name = prefix + protocol[0].upper()
        assert round(100 * result.map, 2) == expected[f"{name}_map"]
        np.testing.assert_array_equal(np.round(100 * result.mp, 2), expected[f"{name}_mp"])


def test_the_command_prints_the_table_and_records_the_run(golden_set, tmp_path):
    finished = run_tool(
        TOOL,
        "-F",
        tmp_path / "log",
        "with",
        f"data_dir={golden_set}",
        "feature_name=r50_gldv2",
        "gnd_name=gnd_mini.pkl",
    )
    assert finished.returncode == 0 and finished.stderr == "", finished.stderr
    medium = next(line for line in finished.stdout.splitlines() if "| Medium" in line)
    assert [cell.strip() for cell in medium.split("|")[2:7]] == ["Medium", "88.33", "83.33", "90.00", "91.67"]
    assert str(golden_set / "nn_inds_r50_gldv2.pkl") in finished.stdout
    assert "nn_inds" not in "".join(files_below(tmp_path))
    assert '"M_map": 88.33' in (tmp_path / "log" / "1" / "run.json").read_text()


def test_nothing_is_written_when_saving_is_off(small_set):
    before = files_below(small_set)
    ranked = prepare_topk_revisited(small_set, "test", "gnd.pkl", save_nn_inds=False)
    assert ranked.path is None and ranked.nn_inds.shape == (2, 4) and files_below(small_set) == before


def test_whitening_changes_the_descriptors_that_are_searched(small_set):
    query, gallery, everything = load_globals(
        small_set / "delg_test.h5",
        read_image_list(small_set / "test_query.txt"),
        read_image_list(small_set / "test_gallery.txt"),
        None,
    )
    whitening = fit_pca_whitening(everything, 2)
    path = whitening.save(small_set / "w.npz")
    ranked = prepare_topk_revisited(small_set, "test", "gnd.pkl", whitening=path)
    expected = whitening.apply(query) @ whitening.apply(gallery).T
    np.testing.assert_allclose(ranked.sims, np.sort(expected, axis=1)[:, ::-1], atol=1e-6)


def test_unknown_entries_of_aqe_params_are_refused(small_set):
    with pytest.raises(InputError, match="'alfa'"):
        prepare_topk_revisited(small_set, "test", "gnd.pkl", True, {"alfa": 1})


def spoil(folder, case):
    if case == "cut store":
        content = (folder / "delg_test.h5").read_bytes()
        (folder / "delg_test.h5").write_bytes(content[: len(content) // 2])
    elif case == "empty list":
        (folder / "test_gallery.txt").write_text("")
    elif case == "short line":
        (folder / "test_query.txt").write_text("jpg/img_000.jpg,0,640,480\njpg/img_001.jpg,1,640\n")
    elif case == "unknown image":
        write_image_list(folder / "test_query.txt", ["jpg/img_000.jpg", "jpg/new.jpg"], [0, 1], [(1, 1)] * 2)
        save_ground_truth(
            folder / "gnd.pkl",
            [f"img_{i:03d}" for i in range(2, 6)],
            ["img_000", "new"],
            [{"bbx": [0, 0, 1, 1], "easy": [0], "hard": [], "junk": []}] * 2,
        )
    elif case == "other gnd":
        save_ground_truth(
            folder / "gnd.pkl", ["x", "y"], ["q"], [{"bbx": [0, 0, 1, 1], "easy": [], "hard": [0], "junk": []}]
        )
    elif case == "damaged gnd":
        (folder / "gnd.pkl").write_bytes(b"\x80\x04]")


@pytest.mark.parametrize(
    "case, settings, parts",
    [
        ("no store", ["feature_name=absent"], ["delg_absent.h5"]),
        ("no folder", ["data_dir=nowhere"], ["nowhere/test_query.txt"]),
        ("no ground truth", ["gnd_name=absent.pkl"], ["absent.pkl"]),
        ("no whitening", ["whitening=absent.npz"], ["absent.npz", "learn_whitening.py"]),
        ("cut store", [], ["delg_test.h5"]),
        ("empty list", [], ["test_gallery.txt", "empty"]),
        ("short line", [], ["test_query.txt:2"]),
        ("unknown image", [], ["delg_test.h5", "'jpg/new.jpg'", "line 2 of test_query.txt"]),
        ("other gnd", [], ["gnd.pkl", "qimlist has 1"]),
        ("damaged gnd", [], ["gnd.pkl"]),
        ("word for a number", ["use_aqe=True", "aqe_params.k=many"], ["aqe_params.k", "'many'", "an integer"]),
        ("number for a dict", ["aqe_params=3"], ["aqe_params", "a dict"]),
        ("unknown setting", ["feature=test"], ["'feature'", "'feature_name'"]),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(small_set, case, settings, parts):
    spoil(small_set, case)
    before = files_below(small_set)
    finished = run_tool(TOOL, "with", f"data_dir={small_set}", "feature_name=test", "gnd_name=gnd.pkl", *settings)
    assert_one_line_error(finished, *parts)
    assert files_below(small_set) == before
