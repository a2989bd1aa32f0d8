"""The web page of an index in a real browser: choosing an image, dragging a box, results, errors. No network describes
images."""

import time

import pytest
from browser import console_errors, requested_addresses
from photo_folders import build, draw, use_fakes
from photo_server import serving

pytest.importorskip("selenium")


@pytest.fixture(scope="module")
def page(tmp_path_factory, browser):
    """(browser at the page, its server, the folder around its photographs)."""
    folder = tmp_path_factory.mktemp("page")
    for scene in range(3):
        for i in range(25):
            draw(folder / "photos" / f"scene{scene}" / f"p{i:02}.png", 100 * scene + i, (400, 300), scene=scene)
    draw(folder / "photos" / "<img src=x onerror=alert(1)> & 'quotes'.png", 999)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    draw(folder / "mine.png", 500, (400, 300), scene=1)
    (folder / "letter.png").write_text("no image")
    (folder / "large.png").write_bytes(b"x" * 400_000)
    with serving(folder / "index") as server:
        browser.get(server.address)
        wait(lambda: find(browser, "#photographs button", many=True))
        yield browser, server, folder


def find(browser, selector, many=False):
    return browser.find_elements("css selector", selector) if many else browser.find_element("css selector", selector)


def wait(condition, seconds=20):
    ends = time.time() + seconds
    while not condition():
        assert time.time() < ends, "it did not happen"
        time.sleep(0.03)


def texts(browser, selector):
    """Of all elements at one moment: the page may replace them in the next."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText)", selector
    )


def text(browser, selector):
    return texts(browser, selector)[0]


def results(browser):
    return texts(browser, "#results button")


def choose_file(browser, path):
    find(browser, "#file").send_keys(str(path))


def wait_for_results(browser, server, count):
    """Until the count-th search since the start is shown."""
    wait(lambda: len(server.service.describer.asked) >= count and text(browser, "#status").startswith("5 results"))


def test_an_uploaded_image_shows_its_scene_first(page):
    browser, server, folder = page
    choose_file(browser, folder / "mine.png")
    wait_for_results(browser, server, 1)
    found = results(browser)
    assert len(found) == 5 and all(
        ("scene1/" in line and "similarity 0." in line) or "similarity 1." in line for line in found
    ), found
    assert text(browser, "#name") == "mine.png"
    wait(lambda: find(browser, "#results img").get_property("naturalWidth") > 0)
    assert text(browser, "#error") == "" and console_errors(browser) == []


def test_a_dragged_box_is_searched_for_in_pixels_of_the_image(page):
    from selenium.webdriver import ActionChains

    browser, server, folder = page
    choose_file(browser, folder / "mine.png")
    before = len(server.service.describer.asked)
    wait_for_results(browser, server, before)
    image = find(browser, "#picture")
    shown = image.rect
    assert image.get_property("naturalWidth") == 400
    ActionChains(browser).move_to_element_with_offset(
        image, -round(shown["width"] / 4), -round(shown["height"] / 4)
    ).click_and_hold().move_by_offset(round(shown["width"] / 2), round(shown["height"] / 2)).release().perform()
    box = [int(find(browser, f"#{name}").get_property("value")) for name in ("x1", "y1", "x2", "y2")]
    assert all(abs(value - wanted) <= 4 for value, wanted in zip(box, (100, 75, 300, 225))), box
    asked = len(server.service.describer.asked)
    find(browser, "#search").click()
    wait(lambda: "searched for the box" in text(browser, "#found-note"))
    assert server.service.describer.asked[asked][1] == tuple(box)
    find(browser, "#whole").click()
    wait(lambda: "box" not in text(browser, "#found-note"))
    assert console_errors(browser) == []


def test_the_box_can_be_drawn_moved_and_removed_with_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    browser, server, folder = page
    choose_file(browser, folder / "mine.png")
    wait(
        lambda: find(browser, "#x2").get_property("value") == "400" and text(browser, "#status").startswith("5 results")
    )
    for name, value in (("x2", "200"), ("y2", "100")):
        find(browser, f"#{name}").send_keys(Keys.CONTROL + "a" + Keys.NULL + value + Keys.TAB)

    def values():
        return [int(find(browser, f"#{name}").get_property("value")) for name in ("x1", "y1", "x2", "y2")]

    assert values() == [0, 0, 200, 100]
    box = find(browser, "#box")
    box.send_keys(Keys.ARROW_RIGHT)
    assert values() == [4, 0, 204, 100]
    box.send_keys(Keys.SHIFT + Keys.ARROW_DOWN)
    assert values() == [4, 0, 204, 104]
    box.send_keys(Keys.ENTER)
    wait(
        lambda: (
            server.service.describer.asked[-1][1] == (4, 0, 204, 104)
            and text(browser, "#status").startswith("5 results")
        )
    )
    box.send_keys(Keys.ESCAPE)
    assert not box.is_displayed() and values() == [0, 0, 400, 300]


def test_a_photograph_of_the_index_can_be_searched_with_and_names_are_never_code(page):
    browser, _, _ = page
    browser.refresh()
    wait(lambda: len(find(browser, "#photographs button", many=True)) == 60)
    odd = find(browser, "#photographs button")
    assert odd.text == "<img src=x onerror=alert(1)> & 'quotes'.png"
    odd.click()
    wait(lambda: text(browser, "#status").startswith("5 results"))
    assert text(browser, "#name").startswith("<img src=x") and not any("<img" in line for line in results(browser))
    find(browser, "#results button").click()
    wait(lambda: "scene" in text(browser, "#name") and text(browser, "#status").startswith("5 results"))


def test_photographs_are_shown_by_pages_and_found_by_name(page):
    browser, _, _ = page
    browser.refresh()
    wait(lambda: len(find(browser, "#photographs button", many=True)) == 60)
    find(browser, "#more").click()
    wait(lambda: len(find(browser, "#photographs button", many=True)) == 76)
    assert not find(browser, "#more").is_displayed()
    find(browser, "#filter").send_keys("scene2/p07")
    wait(lambda: texts(browser, "#photographs button") == ["scene2/p07.png"])


def test_what_is_no_image_or_too_large_is_said(page):
    browser, _, folder = page
    console_errors(browser)
    choose_file(browser, folder / "large.png")
    wait(lambda: "at most 0.3" in text(browser, "#error"))
    assert console_errors(browser) == []
    choose_file(browser, folder / "letter.png")
    wait(lambda: "not an image" in text(browser, "#error"))
    # A request that was refused is all that the console may tell.
    assert all("415" in line for line in console_errors(browser))
    choose_file(browser, folder / "mine.png")
    wait(lambda: text(browser, "#status").startswith("5 results") and text(browser, "#error") == "")


def test_a_dropped_image_is_searched_for(page):
    browser, server, _ = page
    asked = len(server.service.describer.asked)
    browser.execute_async_script("""
        const done = arguments[0], canvas = Object.assign(document.createElement("canvas"), {width: 60, height: 50});
        canvas.toBlob((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "dropped.png", {type: "image/png"}));
          document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true, bubbles: true}));
          done();
        });""")
    wait(lambda: len(server.service.describer.asked) > asked and text(browser, "#name") == "dropped.png")


def test_every_control_has_a_name_and_nothing_but_this_server_was_asked(page):
    browser, server, _ = page
    nameless = browser.execute_script("""
        return [...document.querySelectorAll("button, input")].filter((control) => control.offsetParent !== null
          && !(control.innerText || control.labels?.[0]?.innerText)).map((control) => control.outerHTML)""")
    assert nameless == []
    addresses = [address for address in requested_addresses(browser) if not address.startswith("blob:")]
    assert addresses and all(address.startswith(server.address) for address in addresses)
