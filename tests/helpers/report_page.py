"""A report in the browser, in the words of the tests, and what holds of every report."""

import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from browser import console_errors, load, requested_addresses, wait
from evaluations import make_evaluation, make_pictures
from PIL import Image

from rrt.evaluation.rankings import load_rankings
from rrt.report import pages as report
from rrt.report.data import combine


class Page:
    """The browser on a report, in the words of these tests."""

    def __init__(self, browser, out):
        self.browser, self.out = browser, out

    def open(self, address=""):
        load(self.browser, (self.out / "index.html").as_uri(), address)
        self.wait("return document.querySelector('#main').childElementCount > 2")
        return self

    def wait(self, script, seconds=20):
        wait(lambda: self.run(script), seconds)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def all(self, selector):
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent.trim())", selector
        )

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    @property
    def title(self):
        return (self.all("#query-title") or [None])[0]

    def wait_for(self, found, expected, seconds=20):
        """Until ``found()`` gives what is expected: pages are drawn a moment after a key."""
        last = []

        def as_expected():
            last[:] = [found()]
            return last == [expected]

        try:
            wait(as_expected, seconds)
        except AssertionError:
            raise AssertionError(f"{last}, expected {expected!r}") from None

    def rows(self):
        return self.all("#query-rows th")

    def query(self, name):
        self.run("go({ q: arguments[0] })", name)
        self.wait("return document.querySelectorAll('.tiles li').length > 0")


def make_hostile_report(root):
    """A report in ``root`` of three methods in two evaluations, hostile names, one missing image and a drawn pair."""
    queries, gallery, gnd, rankings = make_evaluation(root / "rrt", hostile=True, gallery=150)
    make_evaluation(
        root / "more",
        hostile=True,
        gallery=150,
        rankings={"global": rankings["global"], "aqe": rankings["RRT"][:, ::-1]},
    )
    make_pictures(root / "pictures", [*queries, *gallery[:-1]])

    def write_pair(folder, *args, **kwargs):
        Image.new("RGB", (60, 20), "navy").save(folder / "matches #1.png")
        picture = {"file": "matches #1.png", "title": "Matches", "caption": "12 <of> 40"}
        return {"images": [picture], "numbers": {"inliers": 12, "logit": 1.2345678}}

    best = int(rankings["RRT"][0, 0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "rrt.report.pair", SimpleNamespace(write_pair=write_pair))
        patch.setattr("rrt.report.pairs._reranker", lambda *args: None)
        patch.setattr("rrt.store.store.Store", lambda path: nullcontext(SimpleNamespace(path=path)))
        report.make_report(
            [root / "rrt", root / "more"], root / "out", root / "pictures", pairs=[f"{queries[0]}:{gallery[best]}"]
        )
    comparison = combine([load_rankings(root / name) for name in ("rrt", "more")])
    return SimpleNamespace(out=root / "out", queries=queries, gallery=gallery, gnd=gnd, comparison=comparison)


@contextmanager
def watched(browser, out):
    """A Page of the report; afterwards: no errors in the console, and nothing was asked for from elsewhere."""
    browser.set_window_size(1400, 1000)
    console_errors(browser), requested_addresses(browser)
    yield Page(browser, out).open()
    _assert_at_peace(browser, out)


def _assert_at_peace(browser, out):
    assert console_errors(browser) == []
    asked = [unquote(address) for address in requested_addresses(browser) if not address.startswith("about:")]
    assert asked and all(address.startswith(unquote(out.as_uri())) for address in asked), asked


def check_report(browser, out, queries):
    """The report of a real run works: all queries in the table, sorting and filtering, a query with its results,
    images that load, no errors in the console, and nothing asked for from elsewhere."""
    console_errors(browser), requested_addresses(browser)
    page = Page(browser, out).open()
    assert len(page.rows()) == len(queries)
    page.click('[data-sort="name"]')
    rows = page.rows()
    page.click('[data-sort="name"]')
    assert page.rows() == rows[::-1] and sorted(rows) == sorted(queries)
    page.press("/", queries[0])
    page.wait_for(page.rows, queries[:1])
    page.query(queries[0])
    assert page.title == queries[0]
    page.wait(
        "return [...document.querySelectorAll('#main img')].filter((img) => img.complete && img.naturalWidth).length "
        ">= 10"
    )
    assert page.count(".tiles .missing") == 0
    _assert_at_peace(browser, out)
