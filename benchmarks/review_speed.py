"""How soon a reviewer sees a photograph, in a long queue.

    python benchmarks/review_speed.py CLASSIFIER PHOTOGRAPHS --work DIR [--queue 100000]

CLASSIFIER is what `flowerray train` made on embeddings, PHOTOGRAPHS a directory of JPEGs. The pile
is so many links to these, with made-up embeddings; it is labelled and nothing of it accepted, so
that all of it is in the queue. `flowerray review` serves it and Chromium looks: the time from
opening the address to the first photograph, and from the key of a decision to the next one, pressed
once a pause. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import machine, peak_megabytes
from stored import store

import flowerray
from flowerray.heads import classifier
from flowerray.sources.listing import FOUND

PAUSE = 0.5  # seconds between decisions
# Until the stage is another photograph's and its picture is decoded, from the key itself.
WATCH = """
() => {
  window.looks = [];
  addEventListener("keydown", () => {
    const before = document.querySelector(".stage")?.dataset.id;
    const pressed = performance.now();
    const look = () => {
      const stage = document.querySelector(".stage");
      const image = stage?.querySelector("img");
      if (stage && stage.dataset.id !== before && image?.complete && image.naturalWidth)
        looks.push(performance.now() - pressed);
      else requestAnimationFrame(look);
    };
    look();
  }, { capture: true });
}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("classifier")
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--queue", type=int, default=100_000)
    options.add_argument("--looks", type=int, default=60)
    chosen = options.parse_args()
    work = chosen.work.resolve()
    labels = work / "labels"
    if not labels.exists():
        shutil.rmtree(work, ignore_errors=True)
        pile = linked(work / "pile", chosen.photographs, chosen.queue)
        features = made_up(work / "features", chosen.classifier, pile)
        flowerray.label(features, classifier=chosen.classifier, out=labels, min_confidence=1.0)
    started = time.monotonic()
    script = [sys.executable, "-m", "flowerray", "review", str(labels), "--no-browser"]
    with subprocess.Popen([*script, "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(
                found[0] for line in server.stderr if (found := re.search(r"http://\S+/", line))
            )
            up = time.monotonic() - started
            first, looks = looked(address, chosen.looks)
            peak = peak_megabytes(server.pid)
        finally:
            server.terminate()
    print(
        f"{machine()}, {datetime.date.today()}; a queue of {chosen.queue:,} photographs.\n\n"
        f"The server listens after {up:.1f} s. First photograph {1000 * first:.0f} ms after its "
        f"page was opened; the next one {np.median(looks):.0f} ms after the key in the median of "
        f"{len(looks)}, {np.quantile(looks, 0.95):.0f} ms in 95 of 100. Server: {peak:,.0f} MB."
    )


def linked(pile: Path, photographs: Path, count: int) -> Path:
    """A directory of `count` links to the photographs, over and over."""
    real = sorted(photographs.resolve().rglob("*.jpg"))
    pile.mkdir(parents=True)
    for number in range(count):
        (pile / f"{number:07d}.jpg").symlink_to(real[number % len(real)])
    return pile


def made_up(directory: Path, of: str, pile: Path) -> Path:
    """Stored embeddings of the photographs in `pile`, between the classifier's centres."""
    trained = classifier.load(of)
    assert trained.dense is not None, f"{of} is no classifier on embeddings"
    centres, chance = trained.dense.centres, np.random.default_rng(0)
    uris = sorted(map(str, pile.iterdir()))
    nothing = [None] * len(uris)
    found = pa.RecordBatch.from_pydict(
        {"uri": uris, "label": nothing, "split": nothing, "size": nothing}, FOUND
    )

    def embeddings(first: int, number: int) -> np.ndarray:
        one, other = centres[chance.integers(0, len(centres), (2, number))]
        rows = one + other + chance.normal(0, 0.03, one.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    return store(directory, trained.base_spec, [found], embeddings)


def looked(address: str, count: int) -> tuple[float, list[float]]:
    """Seconds to the first photograph, and milliseconds to each of the next `count`."""
    from playwright.sync_api import sync_playwright

    browser_at = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_at, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.fill("#who", "ann")
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        page.goto("about:blank")
        started = time.monotonic()
        page.goto(f"{address}#/one/queue")
        page.wait_for_selector(".stage img")
        first = time.monotonic() - started
        page.evaluate(WATCH)
        for _ in range(count):
            page.wait_for_timeout(1000 * PAUSE)
            page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        looks = page.evaluate("looks")
        browser.close()
    return first, looks


if __name__ == "__main__":
    main()
