"""How many copies `flowerray check FEATURES` finds in a pile of real photographs, by kind of copy.

    python benchmarks/copies.py flower_photos --work DIR [--number 200] [--rows 100000]

Of NUMBER photographs a copy of each kind is made: encoded again, resized, cropped a little. All are
extracted once, and each kind is then a pile of its own, with all photographs as they are. Prints how
many copies are in their original's group, which is what `check` does with the stored embeddings; the
pairs of originals that it calls copies as well; and how long so many made-up embeddings take.
"""

from __future__ import annotations

import argparse
import datetime
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import machine
from PIL import Image

from flowerray.commands.extract import extract
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.outputs.stored import mapped
from flowerray.settings import ExtractSettings
from flowerray.trust.duplicates import NEAR_COSINE
from flowerray.trust.neighbours import near_groups

WIDTH = 512


def resized(share: float) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        size = (round(image.width * share), round(image.height * share))
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Less by `share` of width and height, evenly from both sides."""

    def change(image: Image.Image) -> Image.Image:
        x, y = round(image.width * share / 2), round(image.height * share / 2)
        return image.crop((x, y, image.width - x, image.height - y))

    return change


KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "quality 90": (resized(1), 90),
    "quality 60": (resized(1), 60),
    "quality 30": (resized(1), 30),
    "one and a half times the size": (resized(1.5), 85),
    "half the size": (resized(0.5), 85),
    "half the size, quality 40": (resized(0.5), 40),
    "a fifth of the size": (resized(0.2), 85),
    "3% cropped": (cropped(0.03), 90),
    "5% cropped": (cropped(0.05), 90),
    "10% cropped": (cropped(0.10), 90),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--number", type=int, default=200)
    options.add_argument("--rows", type=int, default=100_000)
    chosen = options.parse_args()
    pile, features = chosen.work.resolve() / "pile", chosen.work.resolve() / "features"
    originals = sorted(p for p in chosen.photographs.resolve().rglob("*") if p.is_file())
    copied = copies(originals, pile, chosen.number)
    extract(ExtractSettings(images=str(pile), out=str(features)))
    print(f"{machine()}, {datetime.date.today()}, {len(originals):,} photographs.\n")
    print("| kind | cosine: least, 5%, median | near enough | found | other pairs |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        print(f"| {kind} | {told(features, len(originals), copied, kind)} |", flush=True)
    if chosen.rows:
        print(f"\n{costs(chosen.rows)}")


def copies(originals: list[Path], pile: Path, number: int) -> list[int]:
    """Fill `pile` with links to the originals and a copy of each kind of `number` of them: which."""
    pile.mkdir(parents=True, exist_ok=True)
    for row, path in enumerate(originals):
        if not (link := pile / f"{row:05d}.jpg").exists():
            link.symlink_to(path)
    chosen = sorted(random.Random(0).sample(range(len(originals)), number))
    for row in chosen:
        with Image.open(originals[row]) as opened:
            image = opened.convert("RGB")
        for kind, (change, quality) in enumerate(KINDS.values()):
            change(image).save(pile / f"{row:05d}-{kind}.jpg", quality=quality)
    return chosen


def told(features: Path, originals: int, copied: list[int], kind: str) -> str:
    """What becomes of one kind's copies, as cells of a table."""
    from flowerray.commands.check import read_files
    from flowerray.trust.findings import pile_copies
