"""The report of an evaluation on real photographs, which lie beside the repository, in the browser."""

import shutil

import cv2
import numpy as np
from report_page import check_report

from rrt.evaluation.global_search import prepare_topk_revisited
from rrt.evaluation.run import evaluate_run
from rrt.evaluation.settings import EvaluationSettings
from rrt.formats.lists import read_image_list
from rrt.report.pages import make_report
from rrt.store.records import ImageRecord
from rrt.store.writer import write_store


def described(folder, name, size):
    """An image as its own small grey copy: enough to rank by."""
    small = (
        cv2.resize(cv2.imread(str(folder / name), cv2.IMREAD_REDUCED_GRAYSCALE_8), (8, 8)).astype(np.float32).ravel()
    )
    small -= small.mean() - 1
    none = np.zeros((0, 2), np.float32)
    return ImageRecord(
        name, size, small / np.linalg.norm(small), np.zeros((0, 16), np.float32), none, none[:, 0], none[:, 0]
    )


def test_the_report_of_real_photographs_works(shared_data, browser, tmp_path):
    source, data = shared_data / "landmarks", tmp_path / "data"
    data.mkdir()
    for name in ("test_query.txt", "test_gallery.txt", "gnd_landmarks.pkl"):
        shutil.copy(source / name, data)
    lists = [read_image_list(data / name) for name in ("test_query.txt", "test_gallery.txt")]
    records = [
        described(source, name, size) for images in lists for name, size in zip(images.names, images.sizes.tolist())
    ]
    write_store(data / "delg_grey.h5", records, "grey", {})
    prepare_topk_revisited(data, "grey", "gnd_landmarks.pkl")
    dataset = {"test_data_dir": str(data), "test_gnd_file": "gnd_landmarks.pkl", "desc_name": "grey"}
    evaluate_run(EvaluationSettings(dataset=dataset, reranker="aqe", temp_dir=tmp_path / "run"))
    make_report([tmp_path / "run"], tmp_path / "report", source, num_workers=2)
    check_report(browser, tmp_path / "report", lists[0].names)
