"""A million photographs: the driver's memory, and how long a finished run takes to see that it is.

    python benchmarks/million.py --work DIR [--photographs 1000000]

The photographs are hard links to a few tiny drawn JPEGs, each of its own name, the base is
`thumbnail`: what is measured is all but the network. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from flowers import machine
from PIL import Image

FILES_A_DIRECTORY = 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--photographs", type=int, default=1_000_000)
    chosen = options.parse_args()
    pile, out = chosen.work / "pile", chosen.work / "features"
    if not pile.exists():
        link_pile(pile, chosen.photographs)
    extract = ("extract", pile, "--out", out, "--base", "thumbnail", "--json")
    print(f"{machine()}, {datetime.date.today()}, {chosen.photographs:,} photographs.\n")
    print("| what | seconds | driver's memory at its most, MB |")
    print("|---|---|---|")
    for what, command in (
        ("extract, from command to end", extract),
        ("the same command again", extract),
        ("verify", ("verify", out, "--json")),
    ):
        done, seconds, megabytes = measured(command)
        print(f"| {what} | {seconds:.0f} | {megabytes:.0f} |", flush=True)
        if "computed" in done:
            print(f"computed {done['computed']:,}", file=sys.stderr)


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


def measured(command: tuple[object, ...]) -> tuple[dict, float, float]:
    """The command's JSON, its seconds, and its own process' peak of resident memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerray.cli", *map(str, command)], stdout=subprocess.PIPE
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_kilobytes(process.pid))
        time.sleep(0.2)
    assert process.stdout is not None and process.returncode == 0
    return json.load(process.stdout), time.monotonic() - started, peak / 1000


def peak_kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


if __name__ == "__main__":
    main()
