"""Pictures of the search page and of a report by a headless Chromium; called by rrt_scripts/pictures.sh.

python rrt_scripts/take_pictures.py WORK TEST OUT
"""

import io
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

DESKTOP, PHONE = (1366, 768), (360, 740)
SEARCH = (sys.executable, "-m", "rrt.commands", "search")
PORT = 8765


def main(work: Path, test: Path, out: Path) -> None:
    """Write search_page.webp and its relatives, and report.webp, into ``out``."""
    from browser import open_browser

    out.mkdir(parents=True, exist_ok=True)

    query, street = (test / "test_query.txt").read_text().splitlines()[-1].split(",")[:2]
    album(test, work / "album", int(street))
    subprocess.run((*SEARCH, "build", work / "album", "--index", work / "index", "--quiet"), cwd=ROOT, check=True)
    with open_browser(*DESKTOP) as browser:
        server = subprocess.Popen((*SEARCH, "serve", work / "index", "--port", str(PORT), "-k", "15"), cwd=ROOT)
        try:
            until(lambda: opened(browser, f"http://127.0.0.1:{PORT}/"))
            take_search_page(browser, (test / query).absolute(), out)
        finally:
            server.terminate()
            server.wait()
        report = (work / "report/index.html").absolute().as_uri()
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.set_window_size(1200, 900)
        browser.get(report)
        until(lambda: browser.find_elements("css selector", "#main table"))
        browser.get(f"{report}#query={Path(query).stem}")
        time.sleep(3)
        save(browser, out / "report.webp")


def album(test: Path, folder: Path, own: int) -> None:
    """The gallery's images as someone keeps photographs: by street, with dates, some of them sent small or cut; without
    the lookalikes of the scene ``own``, which come in fours."""
    for number, line in enumerate((test / "test_gallery.txt").read_text().splitlines()):
        name, street = line.split(",")[:2]
        if int(street) // 4 == own // 4 and int(street) != own:
            continue
        with Image.open(test / name) as image:
            exif = Image.Exif()
            exif.get_ifd(0x8769)[0x9003] = f"{2019 + number % 6}:0{1 + number % 9}:1{number % 10} 12:00:00"
            street = f"street {int(street):02}" if int(street) >= 0 else "on the way"
            kept: dict[Path, Image.Image] = {folder / street / f"{Path(name).stem}.jpg": image}
            if number % 30 == 1:
                kept[folder / "sent" / f"small {Path(name).stem}.jpg"] = image.resize(
                    (image.width // 2, image.height // 2)
                )
            if number % 30 == 4:
                kept[folder / "sent" / f"cut {Path(name).stem}.jpg"] = image.crop(
                    (20, 30, image.width - 30, image.height - 20)
                )
            for path, content in kept.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                content.save(path, quality=92, exif=exif)


def take_search_page(browser, query: Path, out: Path) -> None:
    """Pictures of a search with a box on a desktop and on a phone, of a result opened, and of the copies."""
    from search_page import choose_file, drag_box, find, found, fragment, sized

    def search():
        choose_file(browser, query)
        found(browser)
        drag_box(browser, 0.1, 0.08, 0.9, 0.85)
        until(lambda: "box=" in fragment(browser) and found(browser))
        time.sleep(2)  # small images come after the words

    sized(browser, *DESKTOP)
    search()
    save(browser, out / "search_page.webp")
    browser.execute_script("document.querySelector('button.card').click()")
    until(lambda: browser.find_elements("css selector", ".lines line"))
    time.sleep(1)
    save(browser, out / "search_why.webp")
    browser.get(f"http://127.0.0.1:{PORT}/#/view=copies")
    browser.refresh()
    until(lambda: browser.find_elements("css selector", ".copy"), 300)
    find(browser, "#theme").click()
    find(browser, "#theme").click()
    time.sleep(2)
    save(browser, out / "search_copies.webp")
    sized(browser, *PHONE, phone=True)
    find(browser, "#theme").click()
    find(browser, ".home").click()
    until(lambda: browser.find_elements("css selector", ".long"))
    search()
    save(browser, out / "search_phone.webp", share=1)


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


def save(browser, path: Path, share: float = 0.75) -> None:
    """A picture of the window at a share of its size."""
    with Image.open(io.BytesIO(browser.get_screenshot_as_png())) as image:
        size = int(image.width * share), int(image.height * share)
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path, quality=85, method=6)
    print(f"wrote {path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
