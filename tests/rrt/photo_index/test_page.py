"""The search page in a real browser: searches, boxes, what is opened, filters, keys. No network describes images."""

import os
import threading

import pytest
from browser import console_errors, requested_addresses
from photo_folders import FakeDescriber, build, draw, use_fakes
from photo_server import serving

pytest.importorskip("selenium")

from search_page import (
    cards,
    choose_file,
    drag_box,
    find,
    found,
    fragment,
    go,
    open_card,
    press,
    sized,
    status,
    texts,
    told_error,
    visit,
    wait,
)
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

ODD = "<img src=x onerror=alert(1)> & 'quotes'.png"
SCENE = 'button.card[title^="scene1/"]'


@pytest.fixture(scope="module")
def page(tmp_path_factory, browser):
    """(browser at the page, its server, the folder around its photographs)."""
    folder = tmp_path_factory.mktemp("page")
    for scene in range(3):
        for i in range(10):
            draw(folder / "photos" / f"scene{scene}" / f"p{i:02}.png", 100 * scene + i, (400, 300), scene=scene)
    draw(folder / "photos" / ODD, 999)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    draw(folder / "mine.png", 500, (800, 600), scene=1)
    (folder / "letter.png").write_text("no image")
    (folder / "large.png").write_bytes(b"x" * 400_000)
    sized(browser, 1366, 768)
    with serving(folder / "index") as server:
        visit(browser, server)
        yield browser, server, folder


def searched(page):
    """A search for the uploaded image, at its results."""
    browser, server, folder = page
    visit(browser, server)
    choose_file(browser, folder / "mine.png")
    return found(browser)


def test_an_uploaded_image_shows_its_scene_beside_it_without_scrolling(page):
    browser, _, _ = page
    names = searched(page)
    assert len(names) == 5 and all(name.startswith("scene1/") for name in names)
    stage, *results = browser.execute_script("""
        const shown = [...document.querySelectorAll(".stage, button.card")];
        return shown.map((each) => each.getBoundingClientRect().toJSON())""")
    assert stage["bottom"] < 768 and all(place["left"] > stage["right"] and place["bottom"] < 768 for place in results)
    wait(lambda: browser.execute_script("return document.querySelector(arguments[0])?.naturalWidth", f"{SCENE} img"))
    assert told_error(browser) == "" and console_errors(browser) == []


def test_a_search_is_in_the_address_for_reloading_going_back_and_forward(page):
    browser, server, _ = page
    names = searched(page)
    upload = fragment(browser)
    assert upload.startswith("#/upload=") and upload.endswith("&name=mine.png")
    browser.refresh()
    assert found(browser) == names and texts(browser, "#query-title") == ["mine.png"]
    open_card(browser, names[0])
    find(browser, ".viewer .strong").click()
    wait(lambda: fragment(browser) == f"#/photo={names[0]}" and names[0] not in found(browser))
    browser.back()
    browser.back()
    wait(lambda: fragment(browser) == upload and found(browser) == names)
    browser.back()
    wait(lambda: len(cards(browser)) > 5 and texts(browser, "#query-title") == ["What are you looking for?"])
    browser.forward()
    wait(lambda: found(browser) == names)
    visit(browser, server, f"#/photo={names[1]}&box=100,75,300,225")  # as another person would
    found(browser)
    assert server.service.describer.asked[-1][1] == (100, 75, 300, 225)


def test_a_box_searches_when_it_is_let_go_and_the_old_results_leave(page):
    browser, server, _ = page
    searched(page)
    wait(lambda: browser.find_elements("css selector", ".cropper-container"))
    browser.execute_script("""
        window.left = false;
        new MutationObserver(() => { if (!document.querySelector("button.card")) window.left = true; })
          .observe(document.getElementById("main"), {childList: true, subtree: true});""")
    drag_box(browser, 0.25, 0.25, 0.75, 0.75)
    wait(lambda: "box=" in fragment(browser) and found(browser))
    box = [int(value) for value in fragment(browser).rpartition("box=")[2].split(",")]
    assert all(abs(value - wanted) <= 5 for value, wanted in zip(box, (200, 150, 600, 450))), box
    assert server.service.describer.asked[-1][1] == tuple(box) and browser.execute_script("return window.left")
    drag_box(browser, 0.5, 0.5, 0.6, 0.6)  # from within, which moves it
    wait(lambda: server.service.describer.asked[-1][1] not in (tuple(box), None) and found(browser))
    moved = server.service.describer.asked[-1][1]
    assert moved[0] > box[0] and abs((moved[2] - moved[0]) - (box[2] - box[0])) <= 3
    find(browser, ".actions button").click()
    wait(lambda: "box=" not in fragment(browser) and found(browser))
    assert console_errors(browser) == []


def test_the_box_can_be_drawn_moved_sized_and_removed_with_keys(page):
    browser, _, _ = page
    searched(page)
    wait(lambda: browser.find_elements("css selector", ".cropper-container"))
    browser.execute_script("document.querySelector('.stage').focus()")
    press(browser, Keys.ENTER)
    wait(lambda: fragment(browser).endswith("&box=200,150,600,450"))
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    wait(lambda: fragment(browser).endswith("&box=216,166,616,466"))
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    wait(lambda: fragment(browser).endswith("&box=216,166,600,466"))
    find(browser, ".actions summary").click()
    numbers = browser.find_elements("css selector", ".numbers input")
    assert [number.get_property("value") for number in numbers] == ["216", "166", "600", "466"]
    numbers[2].send_keys(Keys.CONTROL + "a" + Keys.NULL + "500" + Keys.ENTER)
    wait(lambda: fragment(browser).endswith("&box=216,166,500,466"))
    browser.execute_script("document.querySelector('.stage').focus()")
    press(browser, Keys.DELETE)
    wait(lambda: "box=" not in fragment(browser) and found(browser))


def test_a_result_opens_large_with_what_both_have_and_ways_on(page):
    browser, server, folder = page
    names = searched(page)
    open_card(browser, names[0])
    wait(lambda: "details agree" in " ".join(texts(browser, ".why")))
    wait(lambda: browser.find_elements("css selector", ".lines line"))
    press(browser, "w")
    wait(lambda: not browser.find_elements("css selector", ".lines line"))
    press(browser, Keys.ARROW_RIGHT)
    wait(lambda: texts(browser, ".viewer h2") == [names[1].rpartition("/")[2]])
    original = find(browser, ".viewer a.button").get_property("href")
    assert original.startswith(server.address + "original/")
    press(browser, "f")
    path = wait(lambda: browser.find_elements("css selector", ".places input"))[0].get_property("value")
    assert path == str((folder / "photos" / names[1]).resolve())
    find(browser, ".places button").click()
    wait(lambda: texts(browser, ".places button") == ["Copied"])
    press(browser, Keys.ESCAPE)
    wait(lambda: not browser.find_elements("css selector", ".viewer"))
    assert found(browser) == names and "open=" not in fragment(browser)


@pytest.mark.parametrize("how", ["close()", "dispatchEvent(new Event('cancel')), dialog.close()"])
def test_a_browser_that_closes_what_is_large_by_itself_goes_back_one_step(page, how):
    browser, _, _ = page
    names = searched(page)
    here = fragment(browser)
    open_card(browser, names[0])
    browser.execute_script(f"const dialog = document.querySelector('.viewer'); dialog.{how}")
    wait(lambda: not browser.find_elements("css selector", ".viewer"))
    assert found(browser) == names and fragment(browser) == here


def test_keys_lead_through_the_photographs(page):
    browser, server, _ = page
    visit(browser, server)
    assert cards(browser)[0] == ODD  # names are never code
    browser.execute_script("document.querySelector('button.card').focus()")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    here = browser.execute_script("return document.activeElement.title")
    assert (
        here
        == cards(browser)[
            browser.execute_script(
                "return getComputedStyle(document.querySelector('.cards')).gridTemplateColumns.split(' ').length"
            )
        ]
    )
    press(browser, Keys.ENTER)
    wait(lambda: texts(browser, ".viewer h2") == [here.rpartition("/")[2]])
    press(browser, Keys.ARROW_RIGHT, Keys.ESCAPE)
    wait(lambda: not browser.find_elements("css selector", ".viewer"))
    browser.execute_script("document.querySelector('button.card').focus()")
    press(browser, "s")
    wait(lambda: found(browser) and texts(browser, "#query-title") == [ODD])
    press(browser, Keys.ESCAPE)
    wait(lambda: len(cards(browser)) > 5)
    press(browser, "/", "scene2 p07")
    wait(lambda: cards(browser) == ["scene2/p07.png"])
    press(browser, Keys.ESCAPE)
    press(browser, "?")
    wait(lambda: find(browser, ".help").is_displayed())


def test_filters_and_the_order_hold_for_list_and_search(page):
    browser, server, _ = page
    visit(browser, server, "#/folder=scene2&sort=newest")
    wait(lambda: cards(browser) and all(name.startswith("scene2/") for name in cards(browser)))
    # The folders to choose from come after the first photographs.
    wait(lambda: browser.find_elements("css selector", "select[aria-label=Folder]"))
    wait(lambda: find(browser, "select[aria-label=Folder]").get_property("value") == "scene2")
    choose_file(browser, page[2] / "mine.png")
    names = found(browser)
    assert len(names) == 5 and all(name.startswith("scene2/") for name in names)
    assert "folder=scene2" in fragment(browser)
    visit(browser, server, "#/since=2000-01-01")
    go(browser, "#/until=2000-01-01")
    wait(lambda: "No photograph passes" in " ".join(texts(browser, "main")))


def test_what_is_no_image_or_too_large_is_said(page):
    browser, server, folder = page
    visit(browser, server)
    console_errors(browser)
    choose_file(browser, folder / "large.png")
    wait(lambda: "at most 0.3" in told_error(browser))
    assert console_errors(browser) == []
    choose_file(browser, folder / "letter.png")
    wait(lambda: "not an image" in told_error(browser))
    # A request that was refused is all that the console may tell.
    assert all("415" in line for line in console_errors(browser))
    choose_file(browser, folder / "mine.png")
    assert found(browser) and told_error(browser) == ""
    visit(browser, server)
    go(browser, f"#/upload={'0' * 64}&name=lost.png")
    wait(lambda: "choose it again" in told_error(browser))


def test_a_dropped_image_is_searched_for(page):
    browser, server, _ = page
    visit(browser, server)
    browser.execute_async_script("""
        const done = arguments[0], canvas = Object.assign(document.createElement("canvas"), {width: 60, height: 50});
        canvas.toBlob((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "dropped.png", {type: "image/png"}));
          document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true, bubbles: true}));
          done();
        });""")
    wait(lambda: found(browser) and texts(browser, "#query-title") == ["dropped.png"])


def test_results_stand_in_groups_and_it_is_said_where_there_is_nothing_like_it(page, monkeypatch):
    browser, server, _ = page
    listed = server.service.photographs(0, 5)["photographs"]
    groups = {"group": ("same", "maybe", "similar", "similar", "similar"), "probability": (0.999, 0.6, 0.2, 0.001, 0.0)}
    results = [
        entry | {"similarity": 0.5, "score": 1.0, "group": group, "probability": probability}
        for entry, group, probability in zip(listed, *groups.values())
    ]
    plain = {"method": "late", "score": "logit", "note": "", "seconds": 0.1, "same_file": None}

    def answer(found, shown):
        monkeypatch.setattr(server.service, "search", lambda *_: plain | {"found": found, "results": shown})
        visit(browser, server, "#/photo=scene2/p09.png")
        wait(lambda: "result" in status(browser))

    answer(True, results)
    assert [title.split(" ")[:2] for title in texts(browser, ".group h2")] == [
        ["The", "same"],
        ["Maybe", "1"],
        ["Only", "similar"],
    ]
    assert texts(browser, ".badge") == ["99 %", "60 %", "20 %"] and status(browser).startswith(
        "5 results: 1 the same, 1"
    )
    assert texts(browser, ".nothing") == [] and "late" not in find(browser, "main").text
    find(browser, ".how summary").click()
    assert "late" in find(browser, "main").text  # the details are one click away
    answer(False, results[2:])
    assert texts(browser, ".nothing b") == ["Nothing like it in these photographs."]
    answer(None, [result | {"group": None, "probability": None} for result in results])
    assert texts(browser, ".group h2") == ["Most alike first 5"] and texts(browser, ".badge") == []


def test_a_photograph_whose_name_is_no_text_or_whose_file_is_gone_is_searched_with(page, monkeypatch):
    browser, server, folder = page
    use_fakes(monkeypatch)
    path = os.fsencode(folder / "photos") + b"/\xff.png"
    os.link(draw(folder / "photos" / "other.png", 555, (400, 300), scene=0), path)
    (folder / "photos" / "other.png").unlink()
    build(folder / "index", folder / "photos")
    os.unlink(path)
    visit(browser, server, "#/text=png&sort=newest")
    (odd,) = (entry for entry in server.service.photographs(0, 100)["photographs"] if "\ufffd" in entry["name"])
    visit(browser, server, f"#/photo=id:{odd['id']}")
    assert len(found(browser)) == 5 and "no longer there" in wait(lambda: " ".join(texts(browser, ".query .quiet")))
    build(folder / "index", folder / "photos")
    console_errors(browser)


def test_waiting_says_what_is_waited_for(page):
    browser, server, folder = page
    wait_for, known = threading.Event(), server.service.describer
    server.service.describer = FakeDescriber(wait_for)
    try:
        visit(browser, server)
        choose_file(browser, draw(folder / "new.png", 7, scene=2))
        wait(lambda: status(browser) == "Looking at the picture…")
        assert cards(browser) == []
        wait_for.set()
        found(browser)
    finally:
        wait_for.set()
        server.service.describer = known


def test_of_thousands_of_photographs_those_in_sight_alone_are_drawn(page, monkeypatch):
    browser, server, _ = page
    asked = []

    def many(offset, limit, *_):
        asked.append(offset)
        entry = {"more": 0, "size": [40, 30], "date": "2024-05-31T00:00:00", "taken": True}
        numbers = range(offset, min(offset + limit, 20_000))
        return {"total": 20_000, "photographs": [entry | {"id": f"{i:064x}", "name": f"n{i}.jpg"} for i in numbers]}

    monkeypatch.setattr(server.service, "photographs", many)
    visit(browser, server)
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.execute_script("scrollTo(0, document.documentElement.scrollHeight / 2)")
    # Those of the beginning stand there until these are drawn.
    shown = wait(lambda: [name for name in cards(browser) if 9_000 < int(name[1:-4]) < 11_000])
    wait(lambda: "n0.jpg" not in cards(browser))
    assert height > 100_000 and 20 < len(shown) < 120 and len(cards(browser)) < 120 and len(asked) < 5
    assert browser.execute_script("return document.querySelectorAll('*').length") < 1500
    console_errors(browser)


def test_an_update_of_the_index_appears_without_reloading(page, monkeypatch):
    browser, server, folder = page
    visit(browser, server)
    use_fakes(monkeypatch)
    draw(folder / "photos" / "a new one.png", 77)
    build(folder / "index", folder / "photos")
    browser.execute_script("dispatchEvent(new Event('focus'))")  # not to wait for its next look
    wait(lambda: "a new one.png" in cards(browser))
    (folder / "photos" / "a new one.png").unlink()
    build(folder / "index", folder / "photos")


def test_a_build_at_work_is_shown(page, monkeypatch):
    browser, server, _ = page
    visit(browser, server)
    assert texts(browser, ".building") == []
    now = server.service.progress()
    monkeypatch.setattr(server.service, "progress", lambda: now | {"describing": (32, 1300)})
    browser.execute_script("dispatchEvent(new Event('focus'))")
    wait(lambda: [each.strip() for each in texts(browser, ".building")] == ["1,300 new photographs: 32 described"])
    monkeypatch.undo()
    browser.execute_script("dispatchEvent(new Event('focus'))")
    wait(lambda: texts(browser, ".building") == [])


def test_nothing_but_this_server_was_asked(page):
    browser, server, _ = page
    addresses = [address for address in requested_addresses(browser) if not address.startswith(("blob:", "about:"))]
    assert addresses and all(address.startswith(server.address) for address in addresses)
