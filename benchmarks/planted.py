"""How many planted faults `flowerray check` finds in real photographs, and what else it reports.

    python benchmarks/planted.py flower_photos --work DIR [--seeds 0 1 2]

flower_photos holds train/CLASS and valid/CLASS. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import machine
from PIL import Image

from flowerray.commands.check import CheckSummary, check
from flowerray.commands.extract import extract
from flowerray.pipeline.connection import connection
from flowerray.settings import CheckSettings, ExtractSettings

EXACT, SWAPPED, NEAR = 20, 20, 5
SUSPECTS = 2 * SWAPPED  # of which so many as possible should be planted


@dataclass(frozen=True)
class Planted:
    """A set with faults: the uris of copies, and of photographs with a wrong label."""

    exact: set[str]
    near: set[str]
    swapped: set[str]


def plant(photographs: Sequence[Path], target: Path, seed: int) -> Planted:
    """Copy `photographs`, each in a SPLIT/CLASS folder, to `target` and plant faults among them:
    copies of training photographs in valid/, the bytes the same or encoded again at other sizes and
    qualities, and photographs in another class's folder."""
    for photograph in photographs:
        place = target.joinpath(*photograph.parts[-3:])
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photograph, place)
    chance = random.Random(seed)
    train = sorted(p for p in target.rglob("*") if p.parts[-3] == "train" and p.is_file())
    classes = sorted({p.parent.name for p in train})
    chosen = chance.sample(train, EXACT + NEAR + SWAPPED)
    planted = Planted(set(), set(), set())
    for original in chosen[:EXACT]:
        copy = target / "valid" / original.parent.name / f"exact-{original.name}"
        shutil.copyfile(original, copy)
        planted.exact.add(str(copy))
    for i, original in enumerate(chosen[EXACT : EXACT + NEAR]):
        copy = target / "valid" / original.parent.name / f"near-{original.name}"
        image, share = Image.open(original), (0.5, 0.6, 0.7, 0.8, 1.25)[i]
        size = (round(image.width * share), round(image.height * share))
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
            copy, "JPEG", quality=(40, 50, 60, 70, 80)[i]
        )
        planted.near.add(str(copy))
    for original in chosen[EXACT + NEAR :]:
        others = [name for name in classes if name != original.parent.name]
        moved = original.parents[1] / chance.choice(others) / f"swapped-{original.name}"
        planted.swapped.add(str(original.rename(moved)))
    return planted


def counts(done: CheckSummary, planted: Planted) -> dict[str, tuple[int, int, int]]:
    """Of each check: how many faults were planted, how many of them found, what else reported."""
    copies = planted.exact | planted.near
    expected = {
        "exact_duplicate": planted.exact,
        "near_duplicate": planted.near,
        "leakage": copies,
        "two_labels": set[str](),
    }
    table = {}
    for name, there in expected.items():
        pairs = [{f.uri, f.other_uri} for f in done.findings if f.check == name]
        also = sum(not pair & copies for pair in pairs)
        table[name] = (len(there), len(there & set[str | None]().union(*pairs)), also)
    if "mislabelled" not in done.counts:
        return table
    suspects = [f.uri for f in done.findings if f.check == "mislabelled"]
    for name, shown in (("mislabelled", len(suspects)), ("mislabelled, the first 40", SUSPECTS)):
        found = len(planted.swapped & set(suspects[:shown]))
        table[name] = (SWAPPED, found, min(shown, len(suspects)) - found)
    return table


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = options.parse_args()
    work = chosen.work.resolve()
    photographs = sorted(p for p in chosen.photographs.resolve().rglob("*") if p.is_file())
    tables = []
    with connection(None):
        for seed in chosen.seeds:
            target, features = work / f"planted-{seed}", work / f"features-{seed}"
            shutil.rmtree(target, ignore_errors=True)
            planted = plant(photographs, target, seed)
            extract(ExtractSettings(images=str(target), out=str(features)))
            for source in (target, features):
                done = check(CheckSettings(source=str(source)))
                tables.append(counts(done, planted))
    print(f"{machine()}, {datetime.date.today()}, seeds {', '.join(map(str, chosen.seeds))}.\n")
    print("| check | planted | found in photographs | others | found in features | others |")
    print("|---|---|---|---|---|---|")
    for name, (there, _, _) in tables[1].items():
        cells = [
            ", ".join(str(table[name][column]) for table in tables[half::2] if name in table)
            for half in (0, 1)
            for column in (1, 2)
        ]
        print(f"| {name} | {there} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
