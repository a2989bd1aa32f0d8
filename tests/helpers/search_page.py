"""The search page in a browser: what is on it, and what a user does."""

from browser import load, wait
from selenium.webdriver import ActionChains


def sized(browser, width, height, phone=False):
    """A window of this inner size."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def visit(browser, server, fragment="#/"):
    """The page at an address, loaded anew, when what it knows of the index and photographs or results are there."""
    load(browser, server.address, fragment)
    wait(lambda: cards(browser) and "photograph" in " ".join(texts(browser, ".top p")))


def go(browser, fragment):
    """Another fragment of the page that is there."""
    browser.get(browser.current_url.partition("#")[0] + fragment)


def find(browser, selector):
    return browser.find_element("css selector", selector)


def texts(browser, selector):
    """Of all elements at one moment: the page may replace them in the next."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText)", selector
    )


def cards(browser):
    """Names of the photographs shown."""
    return browser.execute_script("return [...document.querySelectorAll('button.card')].map((card) => card.title)")


def status(browser):
    return " ".join(texts(browser, "main > [role=status]"))


def told_error(browser):
    return " ".join(texts(browser, "[role=alert]"))


def found(browser):
    """Names of the results, when they are there."""
    return wait(lambda: "result" in status(browser) and cards(browser))


def choose_file(browser, path):
    find(browser, "#file").send_keys(str(path))


def press(browser, *keys):
    """Keys for whatever has the focus."""
    ActionChains(browser).send_keys(*keys).perform()


def drag_box(browser, left, top, right, bottom):
    """A box on the picture searched for, its corners as parts of width and height."""
    wait(lambda: browser.find_elements("css selector", ".cropper-container"))
    stage = find(browser, ".cropper-container")
    width, height = stage.rect["width"], stage.rect["height"]
    to_first = round((left - 0.5) * width), round((top - 0.5) * height)
    by = round((right - left) * width), round((bottom - top) * height)
    half = by[0] // 2, by[1] // 2
    actions = ActionChains(browser).move_to_element_with_offset(stage, *to_first).click_and_hold()
    actions.move_by_offset(*half).move_by_offset(by[0] - half[0], by[1] - half[1]).release().perform()


def fragment(browser):
    return browser.execute_script("return decodeURIComponent(location.hash)")


def open_card(browser, name):
    """A photograph shown large, when all of it is there."""
    find(browser, f'button.card[title="{name}"]').click()
    wait(lambda: texts(browser, ".viewer h2") == [name.rpartition("/")[2]])
