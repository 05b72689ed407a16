"""A million photographs: memory, and how long a finished run takes to see that it is.

    python benchmarks/million.py --work DIR [--photographs 1000000]

The photographs are hard links to a few tiny drawn JPEGs, each of its own name, the base is
`thumbnail`: what is measured is all but the network. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path

import numpy as np
from measure import machine, watch
from PIL import Image

from flowerray.commands.sample import draw_sample

FILES_A_DIRECTORY = 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--photographs", type=int, default=1_000_000)
    chosen = options.parse_args()
    pile, out = chosen.work / "pile", chosen.work / "features"
    if not pile.exists():
        link_pile(pile, chosen.photographs)
    extract = ("extract", pile, "--out", out, "--base", "thumbnail")
    classifier, labels = trained(chosen.work), chosen.work / "labels"
    label = ("label", pile, "--classifier", classifier, "--out", labels, "--format", "csv")
    label += ("--min-confidence", "0.5")
    print(f"{machine()}, {datetime.date.today()}, {chosen.photographs:,} photographs.\n")
    print("| what | seconds | driver's memory at its most, MB |")
    print("|---|---|---|")
    actors: list[float] = []
    for what, command in (
        ("extract, from command to end", extract),
        ("the same command again", extract),
        ("verify", ("verify", out)),
        ("label, with a review queue and all labels as CSV", label),
        ("the same command again", label),
    ):
        done = watch(*command)
        print(f"| {what} | {done.seconds:.0f} | {done.driver_megabytes:.0f} |", flush=True)
        actors = actors or done.actors_megabytes
    print(f"\nAn actor's memory, MB, at each tenth of the way: {', '.join(tenths(actors))}.")


def tenths(samples: list[float]) -> list[str]:
    return [f"{samples[len(samples) * i // 10]:.0f}" for i in range(1, 10)]


def trained(work: Path) -> Path:
    """A classifier of drawn flowers, on thumbnails."""
    if not (work / "classifier").exists():
        sample = draw_sample(work / "sample", per_class=10)
        for command in (
            ("extract", sample.labelled, "--out", work / "few", "--base", "thumbnail"),
            ("train", work / "few", "--out", work / "classifier"),
        ):
            watch(*command)
    return work / "classifier"


def link_pile(pile: Path, photographs: int) -> None:
    originals, chance = pile.parent / "originals", np.random.default_rng(0)
    originals.mkdir(parents=True, exist_ok=True)
    for i in range(FILES_A_DIRECTORY):
        coarse = Image.fromarray(chance.integers(0, 256, (6, 6, 3), np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(originals / f"{i:04d}.jpg")
    for number in range(-(-photographs // FILES_A_DIRECTORY)):
        directory = pile / f"{number:05d}"
        directory.mkdir(parents=True)
        for i in range(min(FILES_A_DIRECTORY, photographs - number * FILES_A_DIRECTORY)):
            os.link(originals / f"{i:04d}.jpg", directory / f"{i:04d}.jpg")


if __name__ == "__main__":
    main()
