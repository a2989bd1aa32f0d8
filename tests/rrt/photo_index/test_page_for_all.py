"""The search page on a phone, in the dark, for eyes that need contrast and for screen readers."""

import re
from itertools import product

import pytest
from photo_folders import build, draw, use_fakes
from photo_server import serving

from rrt.photo_index.app import PAGE

pytest.importorskip("selenium")

from search_page import choose_file, find, found, open_card, press, sized, texts, visit, wait
from selenium.webdriver.common.keys import Keys

COLOURS = {
    name: pair
    for name, *pair in re.findall(
        r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", (PAGE / "page.css").read_text(encoding="utf-8")
    )
}
# Text, what is behind it, and the least contrast of WCAG 2.2, AA (1.4.3 for text, 1.4.11 for edges and focus).
PAIRS = [
    *((text, behind, 4.5) for text, behind in product(("text", "quiet", "accent", "error"), ("back", "panel"))),
    *((text, behind, 4.5) for text, behind in product(("same", "maybe"), ("back",))),
    *((f"on-{name}", name, 4.5) for name in ("accent", "same", "maybe", "similar")),
    *(("edge", behind, 3.0) for behind in ("back", "panel")),
    ("quiet", "line", 4.5),
]


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_known_colours():
    assert contrast("#000000", "#ffffff") == 21 and abs(contrast("#767676", "#ffffff") - 4.54) < 0.01


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(theme):
    low = {
        (text, behind): round(found, 2)
        for text, behind, least in PAIRS
        if (found := contrast(COLOURS[text][theme], COLOURS[behind][theme])) < least
    }
    assert not low


@pytest.fixture(scope="module")
def page(tmp_path_factory, browser):
    """(browser, server, folder) with the page on a phone."""
    folder = tmp_path_factory.mktemp("phone")
    long = "a folder with a rather long name, as people have them, of the summer in which it did not rain"
    for i in range(12):
        draw(folder / "photos" / long / f"{'photograph_of_something_' * 4}{i}.png", i, (300, 400), scene=i % 2)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    draw(folder / f"{'mine' * 30}.png", 500, (300, 400), scene=1)
    sized(browser, 360, 740, phone=True)
    with serving(folder / "index") as server:
        visit(browser, server)
        yield browser, server, folder


def too_wide(browser):
    """What sticks out of the window, and out of nothing that hides it."""
    return browser.execute_script("""
        const hidden = (each) => !each.checkVisibility() || each.closest(".skip, svg, .cropper-container")
          || getComputedStyle(each.parentElement).overflowX === "hidden";
        const wide = [...document.querySelectorAll("body *")]
          .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5 && !hidden(each));
        return wide.map((each) => each.outerHTML.slice(0, 200))
          .concat(document.documentElement.scrollWidth > innerWidth ? ["the page"] : [])""")


def nameless(browser):
    """Controls in sight without a name for a screen reader, and images without a text."""
    return browser.execute_script("""
        const name = (each) => each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") || each.innerText
          || [...(each.labels || [])].map((label) => label.innerText).join("");
        return [...document.querySelectorAll("button, a, input, select, summary, dialog, [role=group], [role=search]")]
          .filter((each) => each.checkVisibility() && !name(each).trim())
          .concat([...document.images].filter((image) => !image.hasAttribute("alt"))).map((each) => each.outerHTML)""")


def test_no_view_is_wider_than_a_phone_and_every_control_has_a_name(page):
    browser, server, folder = page
    assert too_wide(browser) == nameless(browser) == []
    for summary in browser.find_elements("css selector", "summary"):
        summary.click()
    assert too_wide(browser) == []
    visit(browser, server)
    choose_file(browser, next(folder.glob("mine*.png")))
    names = found(browser)
    first = browser.execute_script("return document.querySelector('button.card').getBoundingClientRect().bottom")
    assert too_wide(browser) == nameless(browser) == [] and first < 740
    open_card(browser, names[0])
    wait(lambda: "agree" in " ".join(texts(browser, ".why")))
    press(browser, "f")
    assert too_wide(browser) == nameless(browser) == []
    press(browser, Keys.ESCAPE)


def test_the_page_tells_a_screen_reader_of_its_parts(page):
    browser, server, _ = page
    visit(browser, server)
    assert browser.execute_script("return document.documentElement.lang") == "en"
    for part in ("main", "header h1", "[role=search]", "[role=status]", "section[aria-labelledby]", "ul[aria-label]"):
        assert browser.find_elements("css selector", part), part
    order = []
    browser.execute_script("document.activeElement.blur()")
    for _ in range(12):
        press(browser, Keys.TAB)
        order.append(
            browser.execute_script("const at = document.activeElement; return at.className || at.id || at.tagName")
        )
    wanted = ["skip", "home", "plain", "plain", "file", "text"]
    assert [each for each in order if each in wanted][: len(wanted)] == wanted and "card" in order, order


def test_the_page_is_light_dark_or_as_the_system(page):
    browser, server, _ = page

    def back():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    def rgb(colour):
        return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"

    light, dark = map(rgb, COLOURS["back"])
    for system, wanted in (("dark", dark), ("light", light)):
        features = [{"name": "prefers-color-scheme", "value": system}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert back() == wanted
    find(browser, "#theme").click()
    find(browser, "#theme").click()
    wait(lambda: back() == dark)
    visit(browser, server)
    assert back() == dark
    find(browser, "#theme").click()
    wait(lambda: back() == light)
