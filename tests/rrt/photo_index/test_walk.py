"""The walk of a new user with the shipped model in a real browser: from a folder of photographs to its copies and a
phone."""

import cv2
import numpy as np
import pytest
from browser import console_errors
from photo_folders import detailed
from photo_server import serving
from PIL import Image

from rrt.commands import search
from rrt.photo_index.extraction import open_describer
from rrt.photo_index.manifest import read_manifest
from rrt.photo_index.ranking import make_ranker
from rrt.photo_index.server import ServerSettings

pytest.importorskip("selenium")

from search_page import cards, choose_file, drag_box, find, found, fragment, open_card, sized, texts, visit, wait

SIZE = 640, 480


def seen_again(seed):
    """Another photograph of the same: from elsewhere, in other light."""
    turned = cv2.warpAffine(
        detailed(seed, SIZE), np.array([[0.9, -0.1, 50], [0.1, 0.9, 10.0]]), SIZE, borderMode=cv2.BORDER_REFLECT
    )
    return cv2.convertScaleAbs(turned, alpha=0.8, beta=30)


def save(path, pixels, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(size).save(path, quality=90)
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["rrt search", *map(str, arguments)])
    search.main()


def test_the_walk_of_a_new_user(tmp_path, browser, monkeypatch, capsys):
    photos, index = tmp_path / "photos", tmp_path / "index"
    for seed in range(8):
        save(photos / f"trip {seed % 2}" / f"p{seed}.jpg", detailed(seed, SIZE))
    save(photos / "sent" / "small.jpg", detailed(4, SIZE), (320, 240))
    mine = save(tmp_path / "mine.jpg", seen_again(3))
    two = save(tmp_path / "two.jpg", np.hstack([seen_again(1), seen_again(6)]), (1280, 480))
    build = "build", photos, "--index", index, "--num_workers", "1"
    run(monkeypatch, *build)
    assert "9 photographs (9 new" in capsys.readouterr().out

    manifest = read_manifest(index)
    describer = open_describer(index, manifest.extraction)
    sized(browser, 1366, 768)
    with serving(index, describer, ranker=make_ranker(manifest)) as server:
        visit(browser, server)
        assert len(cards(browser)) == 9

        choose_file(browser, mine)
        assert found(browser)[0] == "trip 1/p3.jpg"

        choose_file(browser, two)
        wait(lambda: texts(browser, "#query-title") == ["two.jpg"] and found(browser))
        drag_box(browser, 0.5, 0.0, 1.0, 1.0)
        wait(lambda: "box=" in fragment(browser) and found(browser)[0] == "trip 0/p6.jpg")

        open_card(browser, "trip 0/p6.jpg")
        wait(lambda: len(browser.find_elements("css selector", ".lines line")) >= 10)
        find(browser, ".viewer .strong").click()
        wait(lambda: texts(browser, "#query-title") == ["p6.jpg"] and "trip 0/p6.jpg" not in found(browser))

        find(browser, ".top a").click()
        wait(lambda: texts(browser, ".copy .what") == ["the largest", "resized"], 60)  # pictures are compared
        assert cards(browser) == ["trip 0/p4.jpg", "sent/small.jpg"]

        find(browser, ".home").click()
        wait(lambda: len(cards(browser)) == 9)
        save(photos / "trip 2" / "new.jpg", detailed(9, SIZE))
        run(monkeypatch, *build)
        browser.execute_script("dispatchEvent(new Event('focus'))")
        wait(lambda: "trip 2/new.jpg" in cards(browser))
        assert console_errors(browser) == []

    with serving(index, describer, ServerSettings("0.0.0.0", 0), make_ranker(manifest)) as server:
        sized(browser, 360, 740, phone=True)
        browser.get(server.address)
        assert "?token=" in texts(browser, "p")[0] and console_errors(browser)
        browser.get(f"{server.address}?token={server.token}")
        wait(lambda: len(cards(browser)) == 10)
        choose_file(browser, mine)
        assert found(browser)[0] == "trip 1/p3.jpg"
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
