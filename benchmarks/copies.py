"""How many copies `flowerray check FEATURES` finds in a pile of real photographs, by kind of copy.

    python benchmarks/copies.py flower_photos --work DIR [--number 100] [--rows 100000]

The pile is all photographs, and one copy each of some: NUMBER of each kind, encoded again, resized
or cropped a little, no two of one photograph. It is extracted and checked. Prints how near the
embeddings of each kind's copies are to their originals' and how many are found, which originals are
called copies of each other, and what comparing so many made-up embeddings takes. Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import machine
from PIL import Image

from flowerray.commands.check import check
from flowerray.commands.extract import extract
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.settings import CheckSettings, ExtractSettings
from flowerray.trust.duplicates import NEAR_COSINE
from flowerray.trust.neighbours import near_groups
from flowerray.trust.suspects import embed

Change = Callable[[Image.Image], Image.Image]


def resized(share: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        size = (round(image.width * share), round(image.height * share))
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def cropped(share: float) -> Change:
    """Less by `share` of width and height, evenly from both sides."""

    def change(image: Image.Image) -> Image.Image:
        x, y = round(image.width * share / 2), round(image.height * share / 2)
        return image.crop((x, y, image.width - x, image.height - y))

    return change


KINDS: dict[str, tuple[Change, int]] = {
    "quality 90": (resized(1), 90),
    "quality 60": (resized(1), 60),
    "quality 30": (resized(1), 30),
    "1.5 times the size": (resized(1.5), 85),
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
    options.add_argument("--number", type=int, default=100)
    options.add_argument("--rows", type=int, default=100_000)
    chosen = options.parse_args()
    pile, features = chosen.work.resolve() / "pile", str(chosen.work.resolve() / "features")
    originals = sorted(p for p in chosen.photographs.resolve().rglob("*") if p.is_file())
    copied = planted(originals, pile, chosen.number)
    extract(ExtractSettings(images=str(pile), out=features))
    done = check(CheckSettings(source=features))
    output = read_output(features, "features")
    uris, embedded = shards.read_table(output, ["uri"])["uri"].to_pylist(), embed(output)
    rows = {Path(uri).stem: row for row, uri in enumerate(uris)}
    bits = {
        frozenset((Path(f.uri).stem, Path(str(f.other_uri)).stem)): f.score for f in done.findings
    }
    group = {Path(u).stem: f.group for f in done.findings for u in (f.uri, str(f.other_uri))}
    print(f"{machine()}, {datetime.date.today()}; {len(uris):,} photographs.\n")
    print("| kind | cosine with the original: least, median | found | most bits that differ |")
    print("|---|---|---|---|")
    for kind, pairs in copied.items():
        cosines = [float(embedded[rows[one]] @ embedded[rows[other]]) for one, other in pairs]
        found = sum(group.get(one, one) == group.get(other) for one, other in pairs)
        near = f"{min(cosines):.3f}, {np.median(cosines):.3f}"
        differ = max(bits.get(frozenset(pair)) or 0 for pair in pairs)
        print(f"| {kind} | {near} | {found} of {len(pairs)} | {differ:.0f} |")
    together: dict[int, list[str]] = {}
    for name, number in sorted(group.items()):
        if not name.endswith("-copy"):
            together.setdefault(number, []).append(name)
    several = [" = ".join(names) for names in together.values() if len(names) > 1]
    print(f"\nOriginals that are called copies, {len(several)} groups: {', '.join(several)}.")
    print("\n" + "; ".join(done.notes))
    if chosen.rows:
        print(f"\n{cost(embedded, chosen.rows)}")


def planted(originals: list[Path], pile: Path, number: int) -> dict[str, list[tuple[str, str]]]:
    """Fill `pile` with links to the originals and copies of some: by kind the names of each copy
    and its original."""
    pile.mkdir(parents=True, exist_ok=True)
    for row, path in enumerate(originals):
        if not (link := pile / f"{row:05d}.jpg").exists():
            link.symlink_to(path)
    chosen = iter(random.Random(0).sample(range(len(originals)), number * len(KINDS)))
    copied: dict[str, list[tuple[str, str]]] = {}
    for kind, (change, quality) in KINDS.items():
        for row in (next(chosen) for _ in range(number)):
            with Image.open(originals[row]) as opened:
                change(opened.convert("RGB")).save(pile / f"{row:05d}-copy.jpg", quality=quality)
            copied.setdefault(kind, []).append((f"{row:05d}-copy", f"{row:05d}"))
    return copied


def cost(embedded: np.ndarray, count: int) -> str:
    """What comparing `count` embeddings takes, each made up between two real ones."""
    chance = np.random.default_rng(0)
    made = np.empty((count, embedded.shape[1]), np.float16)
    for start in range(0, count, 8192):
        some = made[start : start + 8192]
        one, other = embedded[chance.integers(0, len(embedded), (2, len(some)))]
        share = chance.random((len(some), 1), np.float32)
        noise = 0.02 * chance.standard_normal(some.shape, np.float32)
        some[:] = share * one + (1 - share) * other + noise
    tracemalloc.start()
    started = time.monotonic()
    near_groups(made, NEAR_COSINE)
    seconds, more = time.monotonic() - started, tracemalloc.get_traced_memory()[1] / 1e6
    return (
        f"{count:,} embeddings of {made.shape[1]} compared in {seconds:.1f} s with {more:,.0f} MB "
        f"more; the square of ten times as many takes a hundred times as long."
    )


if __name__ == "__main__":
    main()
