"""A real headless Chromium for the tests of web pages; it can reach this machine alone."""

import json
import os
import shutil
import time
from contextlib import contextmanager
from itertools import count

import pytest

SIZE = 1400, 1000


@contextmanager
def open_browser(width=SIZE[0], height=SIZE[1]):
    """-> selenium.webdriver.Chrome; the test is skipped where there is no Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    arguments = [
        "--headless=new",
        "--app=data:,",  # a window without buttons, whose drawing takes a quarter of all time
        f"--window-size={width},{height}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    if hasattr(os, "getuid") and os.getuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's own sandbox refuses to run as root
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def forget(browser):
    """The browser as it was when it was opened: size, colours, what pages have stored, what it has told."""
    browser.get("about:blank")
    for command, how in (
        ("Emulation.clearDeviceMetricsOverride", {}),
        ("Emulation.setEmulatedMedia", {"features": []}),
        ("Network.clearBrowserCookies", {}),
        ("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "all"}),  # each server has its own port
    ):
        browser.execute_cdp_cmd(command, how)
    browser.set_window_size(*SIZE)
    console_errors(browser), requested_addresses(browser)
    return browser


_numbers = count()


def load(browser, page, fragment=""):
    """A page with a fragment, loaded anew also where the browser is at that page: each time by another query, in half
    the time that an empty page in between would take."""
    browser.get(f"{page}?{next(_numbers)}{fragment}")


def wait(condition, seconds=20):
    """Until a condition holds; what it returned. It is asked less and less often: an answer costs ten milliseconds."""
    ends, pause = time.monotonic() + seconds, 0.02
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.2)
    return found


def console_errors(browser):
    """What the pages logged as severe since the last call (errors of scripts, files that could not be loaded)."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def requested_addresses(browser):
    """Every address that was asked for since the last call, data: ones left out."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith("data:")]
