"""The pages of a report in a real browser: for the keyboard, for the dark, for a phone, for those who see little or
nothing."""

import pytest
from report_page import make_hostile_report, watched


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_hostile_report(tmp_path_factory.mktemp("report"))


@pytest.fixture
def page(browser, made):
    with watched(browser, made.out) as opened:
        yield opened


def test_tab_reaches_the_content_and_shows_where_it_is(page):
    page.press("\ue004")
    assert page.run("return document.activeElement.className") == "skip"
    seen = []
    for _ in range(14):
        page.press("\ue004")
        seen.append(
            page.run("""const at = document.activeElement, style = getComputedStyle(at);
            return [at.textContent.trim(), style.outlineStyle, style.outlineWidth]""")
        )
    assert {"Easy", "Hard", "Dark", "LaTeX"} <= {text for text, *_ in seen}
    assert all(style == "solid" and width == "2px" for _, style, width in seen)


def brightness(page):
    colour = page.run("return getComputedStyle(document.body).backgroundColor")  # rgb(251, 251, 250)
    return sum(map(float, colour.split("(")[1].strip(")").split(",")[:3]))


def test_dark_follows_the_system_or_the_switch(page):
    light = brightness(page)
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = brightness(page)
    page.click('#tools [data-value="light"]')
    assert brightness(page) == light > 600 and dark < 120
    page.press("t")
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    )
    assert brightness(page) == dark
    page.open()
    assert brightness(page) == dark and page.run("return document.documentElement.dataset.theme") == "dark"
    page.press("t")
    assert brightness(page) == light


def test_everything_has_a_name_for_those_who_do_not_see_it(page, made):
    for where in (None, made.queries[0]):
        if where:
            page.query(where)
        tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = ("button", "link", "textbox", "searchbox", "combobox", "image", "img", "checkbox", "dialog")
        named = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
        nameless = [node["role"]["value"] for node in named if not node.get("name", {}).get("value", "").strip()]
        assert len(named) > 20 and nameless == []
        assert page.run("return [...document.images].every((img) => img.hasAttribute('alt'))")


def contrast(one, other):
    def luminance(colour):
        parts = [
            value / 255 / 12.92 if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4
            for value in colour
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_frames_stand_out(page, made, theme):
    page.run("setTheme(arguments[0])", theme)
    found = page.run(
        """const probe = document.createElement('i'); document.body.append(probe);
        const colour = (name) => {
            probe.style.color = `var(--${name})`;
            const canvas = new OffscreenCanvas(1, 1).getContext('2d');
            canvas.fillStyle = getComputedStyle(probe).color; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
        const all = Object.fromEntries(arguments[0].map((name) => [name, colour(name)]));
        probe.remove();
        return all;""",
        ["back", "panel", "text", "muted", "accent", "gained", "lost", "easy", "hard", "junk", "negative"],
    )
    page.run("setTheme('auto')")
    for back in ("back", "panel"):
        assert min(contrast(found[name], found[back]) for name in ("text", "muted", "accent", "gained", "lost")) >= 4.5
        assert min(contrast(found[name], found[back]) for name in ("easy", "hard", "junk", "negative")) >= 3


def test_frames_differ_without_colour(page, made):
    page.query(made.queries[0])
    styles = page.run("""return [...document.querySelectorAll('.legend .sample')].map((each) =>
        [each.textContent, getComputedStyle(each).borderStyle])""")
    assert styles == [["E", "solid"], ["H", "dashed"], ["J", "dotted"], ["N", "double"]]


@pytest.mark.parametrize("query", [False, True])
def test_a_phone_scrolls_in_one_direction_alone(page, made, query):
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        if query:
            page.query(made.queries[0])
        assert page.run("return document.documentElement.scrollWidth") <= 390
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
