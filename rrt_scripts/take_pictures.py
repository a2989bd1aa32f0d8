"""Pictures of the search page and of a report by a headless Chromium; called by rrt_scripts/pictures.sh.

python rrt_scripts/take_pictures.py WORK TEST OUT
"""

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

WIDTH, HEIGHT = 1200, 900


def main(work: Path, test: Path, out: Path) -> None:
    """Write search_page.png and report.png into ``out``."""
    from browser import open_browser

    query = (test / "test_query.txt").read_text().splitlines()[-1].split(",")[0]
    with open_browser(WIDTH, HEIGHT) as browser:
        command = [
            sys.executable,
            "-m",
            "rrt.commands",
            "search",
            "serve",
            str(work / "index"),
            "--port",
            "8765",
            "-k",
            "12",
        ]
        server = subprocess.Popen(command, cwd=ROOT)
        try:
            until(lambda: opened(browser, "http://127.0.0.1:8765/"))
            until(lambda: browser.find_elements("css selector", "#photographs button"))
            browser.find_element("css selector", "#file").send_keys(str((test / query).absolute()))
            until(lambda: "results" in browser.find_element("css selector", "#status").text)
            browser.execute_script("window.scrollTo(0, 400)")
            time.sleep(2)  # small images come after the words
            save(browser, out / "search_page.png")
        finally:
            server.terminate()
            server.wait()
        browser.get((work / "report/index.html").absolute().as_uri())
        until(lambda: browser.find_elements("css selector", "#main table"))
        name = Path(query).stem
        browser.get((work / "report/index.html").absolute().as_uri() + f"#query={name}")
        time.sleep(3)
        save(browser, out / "report.png")


def opened(browser, address: str) -> bool:
    """Whether a page answers."""
    from selenium.common.exceptions import WebDriverException

    try:
        browser.get(address)
        return True
    except WebDriverException:
        return False


def until(condition, seconds: float = 60) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("error: the page did not come; is Chromium there?")
        time.sleep(0.2)


def save(browser, path: Path) -> None:
    """A picture of the window, of few colours so that it stays small."""
    scratch = path.with_suffix(".raw.png")
    browser.save_screenshot(str(scratch))
    with Image.open(scratch) as image:
        small = image.convert("RGB").resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
        small.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
    scratch.unlink()
    print(f"wrote {path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
