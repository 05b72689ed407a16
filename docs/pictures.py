"""The pictures in docs/images, of what the commands make of the drawn sample set.

    python docs/pictures.py

Needs Chromium (CHROMIUM names another than the one on PATH) and playwright, of flowerray[test].
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from flowerray import cli
from flowerray.pipeline import connection

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1000, 640
COLOURS = 96  # in a picture, so that it is small enough to keep beside the code


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
        os.chdir(directory)
        with connection.connection(None):
            do("flowerray sample demo")
            do("flowerray run demo/labelled demo/pile --out results --truth demo/truth.csv")
        do("flowerray report results/labels --out labels.html")
        do("flowerray report results/classifier --out classifier.html")
        shrink(Path("results/labels.png"), IMAGES / "labels.png", width=720)
        for page in ("labels", "classifier"):
            photograph(Path(f"{page}.html"), Path(f"{page}.png"))
            shrink(Path(f"{page}.png"), IMAGES / f"{page}_report.png", width=WIDTH)
        review("results/labels", Path("review.png"))
        shrink(Path("review.png"), IMAGES / "review.png", width=WIDTH)


def do(command: str) -> None:
    """Run a flowerray command as a user would."""
    print(f"$ {command}", flush=True)
    if cli.main(command.split()[1:]) != 0:
        sys.exit(f"failed: {command}")


def photograph(page: Path, picture: Path) -> None:
    """The top of an HTML page, as a browser shows it."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        # A container's root may use no sandbox; the page is our own.
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=picture)
        chromium.close()


def review(labels: str, picture: Path) -> None:
    """The review's page with a photograph of its queue, as a browser shows it."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
    script = [sys.executable, "-m", "flowerray", "review", labels, "--no-browser", "--port", "0"]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            found = (re.search(r"http://\S+/", line) for line in server.stderr)
            address = next(one[0] for one in found if one)
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(
                    executable_path=browser, args=["--no-sandbox"]
                )
                tab = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                tab.goto(address)
                tab.fill("#who", "ann")
                tab.keyboard.press("Enter")
                tab.goto(f"{address}#/one/queue")
                tab.wait_for_selector(".stage img")
                tab.evaluate("document.querySelector('.panel .file').hidden = true")
                tab.screenshot(path=picture)
                chromium.close()
        finally:
            server.terminate()


def shrink(picture: Path, target: Path, width: int) -> None:
    """`picture` in `width` pixels and a palette."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((width, image.height))
    image.quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    main()
