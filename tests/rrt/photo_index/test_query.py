"""Queries of an index: the same results as plain arithmetic, the query's forms, methods, reports, measures."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import assert_one_line_error, run_tool
from photo_folders import GLOBAL, LOCAL, FakeDescriber, build, describe, draw, use_fakes

from rrt.calibration import Calibration, write_calibration
from rrt.errors import InputError
from rrt.files.images import parse_box
from rrt.formats.ground_truth import save_ground_truth
from rrt.formats.image_jobs import Job
from rrt.formats.lists import write_image_list
from rrt.formats.revisited import load_revisited_set
from rrt.network.checkpoint import attach_calibration, save_checkpoint
from rrt.network.model import DEFAULT_SETTINGS, RRT
from rrt.network.reranker import Reranker
from rrt.photo_index.measure import measure_index
from rrt.photo_index.query import Hits, PhotoIndex
from rrt.photo_index.ranking import Ranker, make_ranker
from rrt.photo_index.report import as_html, as_json, as_text
from rrt.photo_index.service import answer_file, answer_photograph
from rrt.rerankers.build import identity_of
from rrt.rerankers.shipped import METHOD as SHIPPED_METHOD
from rrt.rerankers.shipped import SETTINGS
from rrt.search.whitening import Whitening
from rrt.store.store import Store
from rrt.store.writer import write_store

SCENES, VIEWS = 4, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photographs of four scenes, a copy of one, their index, and an image of scene 2 that is not among
    them."""
    folder = tmp_path_factory.mktemp("query")
    for scene in range(SCENES):
        for view in range(VIEWS):
            draw(folder / "photos" / f"s{scene}v{view}.png", 10 * scene + view, scene=scene)
    (folder / "photos" / "z copy <b>.png").write_bytes((folder / "photos" / "s0v0.png").read_bytes())
    draw(folder / "new.png", 77, scene=2)
    (folder / "photos" / "text.jpg").write_text("no image")
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    return folder


@pytest.fixture(scope="module")
def index(folder):
    return PhotoIndex(folder / "index")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    settings = DEFAULT_SETTINGS | {
        "num_global_features": GLOBAL,
        "num_local_features": LOCAL,
        "dim_K": 16,
        "dim_feedforward": 16,
        "num_encoder_layers": 1,
    }
    settings = {name: value for name, value in settings.items() if name in DEFAULT_SETTINGS}
    path = tmp_path_factory.mktemp("model") / "best.pt"
    return save_checkpoint(path, RRT(**settings), settings={"model": settings})


def names(answer):
    return [hit.entry.name for hit in answer.hits]


def test_global_search_orders_as_plain_cosines_do(folder, index):
    answer = answer_file(index, folder / "new.png", "new.png", Ranker("none"), FakeDescriber(), 12)
    query = describe(Job("q", folder / "new.png")).global_
    cosines = {
        entry.name: float(describe(Job("p", folder / "photos" / entry.name)).global_ @ query) for entry in index.entries
    }
    assert names(answer) == sorted(cosines, key=cosines.get, reverse=True) and len(index.entries) == 12
    assert np.allclose([hit.similarity for hit in answer.hits], sorted(cosines.values(), reverse=True), atol=1e-5)
    assert all(name.startswith("s2") for name in names(answer)[:3])


def test_a_photograph_is_meant_by_name_or_path_and_is_left_out(folder, index, monkeypatch):
    monkeypatch.chdir(folder)
    for image in ("s1v0.png", "photos/s1v0.png", str(folder / "photos" / "s1v0.png")):
        number = index.find(image)
        assert index.entries[number].name == "s1v0.png", image
    assert index.find("z copy <b>.png") == index.find("s0v0.png")
    assert index.find("new.png") is None and index.find("nowhere.png") is None
    describer = FakeDescriber()
    answer = answer_photograph(index, number, Ranker("none"), describer, 20)
    assert "s1v0.png" not in names(answer) and len(answer.hits) == 11 and describer.asked == []
    assert {*names(answer)[:2]} == {"s1v1.png", "s1v2.png"}
    with pytest.raises(InputError, match="has no descriptors: not an image"):
        index.find("text.jpg")


def test_a_file_with_the_bytes_of_a_photograph_finds_it(folder, index):
    copied = folder / "elsewhere.png"
    copied.write_bytes((folder / "photos" / "s3v1.png").read_bytes())
    answer = answer_file(index, copied, "elsewhere.png", Ranker("none"), FakeDescriber(), 3)
    assert names(answer)[0] == "s3v1.png" and answer.hits[0].similarity > 0.9999
    assert "the index has the same file: s3v1.png" in as_text(index, answer, Ranker("none"))


def test_the_transformer_reranks_as_scores_of_single_pairs_do(folder, index, checkpoint):
    ranker = make_ranker(index.manifest, checkpoint=str(checkpoint), num_rerank=6)
    reranker = Reranker.from_checkpoint(checkpoint)
    answer = answer_file(index, folder / "new.png", "new.png", ranker, FakeDescriber(), 12)
    before = names(answer_file(index, folder / "new.png", "new.png", Ranker("none"), FakeDescriber(), 12))
    write_store(folder / "q.h5", [describe(Job("q", folder / "new.png"))])
    query = Store(folder / "q.h5")[0]
    logits = {name: reranker.score(query, index.store[int(index.rows[index.numbers[name]])]) for name in before[:6]}
    assert names(answer)[:6] == sorted(logits, key=logits.get, reverse=True) and names(answer)[6:] == before[6:]
    wanted = [logits[name] for name in names(answer)[:6]]
    assert np.allclose([hit.score for hit in answer.hits[:6]], wanted, atol=1e-4) and ranker.score_name == "logit"
    assert all(hit.score is None for hit in answer.hits[6:]) and all(hit.probability is None for hit in answer.hits)


def test_fusion_and_other_methods_are_taken(folder, index, checkpoint, tmp_path):
    (tmp_path / "fusion.json").write_text('{"lambda": 1.0, "temperature": 1.0}')
    plain = names(answer_file(index, folder / "new.png", "n", Ranker("none"), FakeDescriber(), 12))
    fused = make_ranker(index.manifest, checkpoint=str(checkpoint), fusion=str(tmp_path / "fusion.json"))
    assert names(answer_file(index, folder / "new.png", "n", fused, FakeDescriber(), 12)) == plain
    for method in ("geometric", "alpha_qe", "k_reciprocal", "geometric+aqe"):
        ranker = make_ranker(index.manifest, method)
        answer = answer_file(index, folder / "new.png", "n", ranker, FakeDescriber(), 12)
        assert sorted(names(answer)) == sorted(plain)
        assert (ranker.score_name == "inliers") == (method == "geometric")
    number = index.find("s1v0.png")
    assert "s1v0.png" not in names(
        answer_photograph(index, number, make_ranker(index.manifest, "diffusion"), FakeDescriber(), 20)
    )


def test_a_chain_verifies_what_the_transformer_ordered_and_keeps_its_order_where_inliers_are_equal(
    folder, index, checkpoint
):
    def search(method):
        given = str(checkpoint) if "rrt" in method else None
        ranker = make_ranker(index.manifest, method, given)
        return answer_file(index, folder / "new.png", "n", ranker, FakeDescriber(), 12), ranker

    asked = ("rrt[num=9]", "geometric[num=9]", "rrt[num=9]+geometric[num=9]", "geometric[num=9]+rrt[num=9,local=3]")
    (alone, _), (verified, _), (chained, ranker), (other, turned) = map(search, asked)
    inliers = {hit.entry.name: hit.score for hit in verified.hits[:9]}
    assert names(chained)[:9] == sorted(names(alone)[:9], key=lambda name: -inliers[name])
    assert [hit.score for hit in chained.hits[:9]] == [inliers[name] for name in names(chained)[:9]]
    assert names(chained)[9:] == names(alone)[9:] and ranker.score_name == "inliers"
    assert {*names(other)[:9]} == {*names(verified)[:9]} and turned.score_name == "logit"


def test_probabilities_stand_beside_the_scores_that_they_were_fitted_on(folder, index, checkpoint, tmp_path):
    made = identity_of(make_ranker(index.manifest, "maxsim").method)
    known = {"model_sha256": index.manifest.extraction["model_sha256"]}
    calibration = Calibration("platt", 4.0, -1.0, method=made, descriptors=known)
    file = str(write_calibration(tmp_path / "c.json", calibration))
    ranker = make_ranker(index.manifest, "maxsim", num_rerank=6, calibration=file)
    answer = answer_file(index, folder / "new.png", "new.png", ranker, FakeDescriber(), 12)
    wanted = [1 / (1 + np.exp(1 - 4 * hit.score)) for hit in answer.hits[:6]]
    assert np.allclose([hit.probability for hit in answer.hits[:6]], wanted)
    assert [hit.probability for hit in answer.hits[6:]] == [None] * 6
    title, first = as_text(index, answer, ranker).splitlines()[1:3]
    assert title.split() == ["rank", "probability", "matching", "similarity", "photograph"]
    assert first.split()[1] == f"{wanted[0]:.2f}" and first.split()[-1] == names(answer)[0]
    assert f"probability {wanted[0]:.2f}" in as_html(index, answer, ranker)
    assert as_json(index, answer, ranker)["results"][0]["probability"] == round(wanted[0], 4)
    for method, part in (
        ("geometric", "fitted on scores of maxsim"),
        ("maxsim[local=9]", "maxsim.query_local=100, not 9"),
    ):
        with pytest.raises(InputError, match=part):
            make_ranker(index.manifest, method, calibration=file)
    with pytest.raises(InputError, match="another whitening"):
        make_ranker(index.manifest, "maxsim", calibration=file, whitening=Whitening(np.zeros(2), np.eye(2)))
    own = tmp_path / "own.pt"
    own.write_bytes(checkpoint.read_bytes())
    (scored,) = identity_of(make_ranker(index.manifest, checkpoint=str(own)).method)
    attach_calibration(own, Calibration("platt", 0.5, 0.0, method=[scored], descriptors=known))
    ranker = make_ranker(index.manifest, checkpoint=str(own))
    (hit,) = answer_file(index, folder / "new.png", "new.png", ranker, FakeDescriber(), 1).hits
    assert hit.probability == pytest.approx(1 / (1 + np.exp(-hit.score / 2)))
    assert make_ranker(index.manifest, checkpoint=str(own), max_local=7).calibration is None


THRESHOLDS = {"maybe": 0.5, "same": 0.8, "uniformity": 0.9}


def test_results_stand_in_groups_by_the_number_shown_first(folder, index, tmp_path):
    known = {"model_sha256": index.manifest.extraction["model_sha256"]}
    made = identity_of(make_ranker(index.manifest, "maxsim").method)
    calibration = Calibration("platt", 8.0, -4.0, method=made, descriptors=known, thresholds=THRESHOLDS)
    ranker = replace(make_ranker(index.manifest, "maxsim", num_rerank=6), calibration=calibration)
    ranker = replace(ranker, beyond=Calibration("platt", 40.0, 0.0))
    answer = answer_file(index, folder / "new.png", "new.png", ranker, FakeDescriber(), 12)
    shown = [hit.probability for hit in answer.hits]
    assert len(shown) == 12 and shown == sorted(shown, reverse=True) and answer.hits.found is True
    # Of those that are not reranked none is above those that are, however near they are.
    tail = np.minimum.accumulate([shown[5], *(1 / (1 + np.exp(-40 * hit.similarity)) for hit in answer.hits[6:])])
    assert shown[6:] == pytest.approx(tail[1:].tolist())
    limits = [(0.8, "same"), (0.5, "maybe"), (0, "similar")]
    assert [hit.group for hit in answer.hits] == [next(n for t, n in limits if p >= t) for p in shown]
    assert {"same", "similar"} <= {hit.group for hit in answer.hits}
    values = as_json(index, answer, ranker)
    assert values["found"] is True and [each["group"] for each in values["results"]] == [h.group for h in answer.hits]
    assert "<h2>The same</h2>" in as_html(index, answer, ranker) and "nothing like" not in as_text(
        index, answer, ranker
    )


def test_without_a_calibration_nothing_is_said_of_groups(folder, index):
    answer = answer_file(index, folder / "new.png", "new.png", Ranker("none"), FakeDescriber(), 3)
    assert answer.hits.found is None and {hit.group for hit in answer.hits} == {None}
    assert as_json(index, answer, Ranker("none"))["found"] is None
    assert "<h2>" not in as_html(index, answer, Ranker("none")) and Hits().found is False


def test_where_nothing_is_like_it_that_is_the_answer(folder, index):
    calibration = Calibration("platt", 1.0, -9.0, thresholds=THRESHOLDS)
    ranker = Ranker("none", calibration=calibration)  # of cosines
    answer = answer_file(index, folder / "new.png", "new.png", ranker, FakeDescriber(), 3)
    assert answer.hits.found is False and as_json(index, answer, ranker)["found"] is False
    assert {hit.group for hit in answer.hits} == {"similar"}
    for text in (as_text(index, answer, ranker), as_html(index, answer, ranker)):
        assert "nothing like it in these photographs" in text
    number = index.find("s1v0.png")
    assert answer_photograph(index, number, ranker, FakeDescriber(), 3, (0, 0, 40, 40)).hits.found is False


def test_an_empty_picture_finds_nothing_however_alike_it_is(folder, index):
    ranker = Ranker("none", calibration=Calibration("platt", 1.0, 9.0, thresholds=THRESHOLDS))
    record = describe(Job("q", folder / "new.png"))
    assert index.search(record, ranker, 3).found is True
    flat = replace(record, descriptors=record.descriptors * 0 + record.descriptors[:1])
    hits = index.search(flat, ranker, 3)
    assert hits.found is False and [hit.probability for hit in hits] == [0, 0, 0]


def test_without_a_checkpoint_for_the_model_search_alone_is_done_and_said(index):
    other = replace(index.manifest, extraction=index.manifest.extraction | {"flags": [["--model", "/x.h5"]]})
    ranker = make_ranker(other)
    assert ranker.name == "none" and "no checkpoint for this model" in ranker.note
    assert make_ranker(index.manifest, "none").note == make_ranker(index.manifest).note == ""
    assert make_ranker(index.manifest).name == SHIPPED_METHOD
    for wrong, part in (
        ({"method": "rrt"}, "no checkpoint"),
        ({"method": "nonsense"}, "no such method"),
        ({"num_rerank": 0}, "--num_rerank"),
        ({"method": "geometric", "checkpoint": "x.pt"}, "a checkpoint is for"),
        ({"checkpoint": "no.pt"}, "no.pt"),
        ({"method": "aqe", "fusion": "f.json"}, "fusion is for"),
        ({"max_local": 0}, "--max_local"),
    ):
        with pytest.raises(InputError, match=part):
            make_ranker(index.manifest, **wrong)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "5,5,5,9", "9,0,5,5", "-1,0,5,5", "1.5,2,3,4"])
def test_a_crop_that_is_none_is_refused(text):
    for written in (text, f"[{text}]"):
        with pytest.raises(InputError, match="expected"):
            parse_box(written)


def test_a_box_is_four_numbers_with_or_without_brackets():
    assert parse_box("1,2,30,40") == parse_box("[1, 2, 30, 40]") == (1, 2, 30, 40)
    with pytest.raises(InputError, match="--crop 1,2: expected"):
        parse_box("1,2", "--crop")


def test_the_page_of_results_needs_nothing_beside_it_and_names_are_no_markup(folder, index):
    answer = answer_photograph(index, index.find("s1v0.png"), Ranker("none", note="a <note>"), FakeDescriber(), 20)
    page = as_html(index, answer, Ranker("none", note="a <note>"))
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.append((tag, dict(attributes)))

    Reader().feed(page)
    sources = [attributes["src"] for tag, attributes in found if tag == "img"]
    assert len(sources) == 12 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not {"script", "link", "b>", "note"} & {tag for tag, _ in found}
    assert "s0v0.png (and 1 more of the same content)" in page and "a &lt;note&gt;" in page
    values = as_json(index, answer, Ranker("none"))
    assert json.loads(json.dumps(values)) == values and [r["rank"] for r in values["results"]] == list(range(1, 12))
    assert {"z copy <b>.png"} <= {path for result in values["results"] for path in result["paths"]}


def test_precision_is_that_of_the_labels(folder, index, tmp_path):
    gallery = [f"s{scene}v{view}.png" for scene in range(SCENES) for view in range(VIEWS)][:-1] + ["z copy <b>.png"]
    write_image_list(tmp_path / "g.txt", gallery, [0] * len(gallery), [(80, 60)] * len(gallery))
    write_image_list(tmp_path / "q.txt", ["q0.png", "q1.png"], [0, 0], [(80, 60)] * 2)
    easy = [[i for i, name in enumerate(gallery) if name.startswith(f"s{scene}")] for scene in (2, 0)]
    truth = [{"bbx": [0, 0, 80, 60], "easy": positions, "hard": [], "junk": []} for positions in easy]
    save_ground_truth(tmp_path / "gnd.pkl", [name[:-4] for name in gallery], ["q0", "q1"], truth)
    images = load_revisited_set(tmp_path / "q.txt", tmp_path / "g.txt", tmp_path / "gnd.pkl")
    records = [describe(Job(f"q{i}.png", draw(tmp_path / f"{i}.png", 80 + i, scene=2))) for i in range(2)]
    queries = Store(write_store(tmp_path / "q.h5", records))
    results = measure_index(index, images, queries, [Ranker("none")])["global search"]
    assert results["medium"].mp[0] == 0.5  # the second query is of scene 2, its label says scene 0
    write_image_list(tmp_path / "g.txt", [*gallery[:-1], "away.png"], [0] * len(gallery), [(80, 60)] * len(gallery))
    save_ground_truth(tmp_path / "gnd.pkl", [*(name[:-4] for name in gallery[:-1]), "away"], ["q0", "q1"], truth)
    images = load_revisited_set(tmp_path / "q.txt", tmp_path / "g.txt", tmp_path / "gnd.pkl")
    with pytest.raises(InputError, match=r"has no 'away.png' \(line 12 of g.txt"):
        measure_index(index, images, queries, [Ranker("none")])


def test_plain_matching_of_the_shipped_model_blends_in_the_global_similarity(folder, index):
    ranker = make_ranker(index.manifest, "maxsim", num_rerank=6)
    hits = answer_file(index, folder / "new.png", "new.png", ranker, FakeDescriber(), 12).hits
    query, weight = describe(Job("q", folder / "new.png")), SETTINGS["maxsim"]["weight"]
    for hit in hits[:6]:
        other = index.store[int(index.rows[index.numbers[hit.entry.name]])].record()
        cosines = query.descriptors @ other.descriptors.T
        matched = (cosines.max(1).mean() + cosines.max(0).mean()) / 2
        assert hit.score == pytest.approx(weight * hit.similarity + (1 - weight) * matched, abs=1e-3)
    assert [hit.score for hit in hits[:6]] == sorted((hit.score for hit in hits[:6]), reverse=True)
    assert [hit.score for hit in hits[6:]] == [None] * 6


def test_importing_the_index_loads_neither_tensorflow_nor_the_network():
    code = (
        "import sys, rrt.photo_index.update, rrt.photo_index.manifest; "
        "print([m for m in ('tensorflow', 'torch') if m in sys.modules]); "
        "import rrt.photo_index.server, rrt.photo_index.measure; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_a_damaged_segment_is_said_to_be_of_an_index(folder, tmp_path):
    for number, damage in enumerate((Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:5000]))):
        copy = shutil.copytree(folder / "index", tmp_path / f"{number}")
        (segment,) = copy.glob("segments/*.h5")
        damage(segment)
        with pytest.raises(InputError, match=rf"^{segment}: damaged \(.*\); delete the folder of the index and build"):
            PhotoIndex(copy)
        with pytest.MonkeyPatch.context() as patched, pytest.raises(InputError, match="delete the folder of the index"):
            use_fakes(patched)
            build(copy, folder / "photos")


def test_a_thumbnail_is_made_again_where_it_is_damaged_and_brings_no_deleted_index_back(folder, tmp_path):
    index = PhotoIndex(shutil.copytree(folder / "index", tmp_path / "index"))
    whole = index.thumbnail(0)
    (kept,) = (tmp_path / "index/thumbnails").glob(f"{index.entries[0].content}.jpg")
    kept.write_bytes(b"garbage")
    assert index.thumbnail(0) == whole == kept.read_bytes()
    shutil.rmtree(tmp_path / "index")
    assert index.thumbnail(0) == whole and not (tmp_path / "index").exists()


def test_wrong_queries_are_one_line(folder):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "mine.json").write_bytes(b"\xff")
    for arguments, part in (
        (("query", folder / "index", "nowhere.jpg"), "neither a file nor a photograph"),
        (("query", folder / "nowhere", "x.jpg"), "no index there"),
        (("query", folder / "index", folder / "photos"), "photos: a folder or no regular file"),
        (("query", folder / "index", folder / "pipe.jpg"), "pipe.jpg: a folder or no regular file"),
        (("query", folder / "index", "s1v0.png", "--calibration", folder / "mine.json"), "; make it with"),
        (("query", folder / "index", folder / "new.png"), "described by the model of SHA-256 000000000000..."),
        (("query", folder / "index", "s1v0.png", "--crop", "1,2,3"), "--crop 1,2,3"),
        (("serve", folder / "index", "--port", "99999"), "--port 99999"),
    ):
        assert_one_line_error(run_tool("tools/search.py", *arguments), part)
