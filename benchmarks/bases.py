"""Bases whose weights a package index carries: errors on real photographs, and end-to-end speed.

    python benchmarks/bases.py flower_photos --work DIR [--seeds 0 1 2] [--repeats 3] [--number 400]
        [--only errors speed]

flower_photos holds train/CLASS and valid/CLASS. Features in DIR are used again. Speed is of
`extract` in steady state, all ways in turn, and of decoding alone. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import statistics
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measure import machine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from speed import Bench, in_turn

from flowerray.commands.extract import extract
from flowerray.commands.train import train
from flowerray.pipeline.connection import connection
from flowerray.settings import ExtractSettings, TrainSettings

LITE = [f"efficientnet-lite{i}" for i in range(3)]
WAYS: list[dict[str, str]] = [
    {"base": "vgg16"},
    *({"base": base} for base in LITE),
    {"base": "densenet121"},
    {"base": "efficientnet-lite0", "pool": "avg"},
    {"base": "efficientnet-lite0", "preparation": "torch"},
    {"base": "efficientnet-lite0", "precision": "int8"},
]
TIMED: list[dict[str, str]] = [
    {"base": "vgg16"},
    *({"base": base} for base in LITE),
    {"base": "efficientnet-lite0", "precision": "int8"},
]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--number", type=int, default=400, help="photographs in a run of VGG16")
    parts = ["errors", "speed"]
    options.add_argument("--only", nargs="+", choices=parts, default=parts)
    chosen = options.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    if "errors" in chosen.only:
        print(f"{machine()}, {datetime.date.today()}, seeds {chosen.seeds}.\n")
        errors(chosen.photographs, chosen.work, chosen.seeds)
    if "speed" in chosen.only:
        print(
            f"\n{machine()}, {datetime.date.today()}; medians of {chosen.repeats} rounds in turn, "
            f"{chosen.number:,} photographs each, ten times as many for all but VGG16.\n"
        )
        few, many = (
            Bench(chosen.photographs.resolve(), chosen.work.resolve(), number)
            for number in (chosen.number, 10 * chosen.number)
        )
        speed(few, many, chosen.repeats)


def errors(photographs: Path, work: Path, seeds: list[int]) -> None:
    """Of default heads on the photographs to validate, and of plain heads in ten folds of all."""
    lines = [
        "| `extract` | errors of those to validate | mean | of all, cross-validated |",
        "|---|---|---|---|",
    ]
    with connection(None):
        for way in WAYS:
            features = work / "-".join(["features", *way.values()])
            extract(ExtractSettings(images=str(photographs), out=str(features), **way))
            scores = []
            for seed in seeds:
                out = work / "classifier"
                shutil.rmtree(out, ignore_errors=True)
                settings = TrainSettings(features=str(features), out=str(out), seed=seed)
                scores.append(train(settings).scores)
            wrong = [score["errors"] for score in scores]
            lines.append(
                f"| {told(way)} | {', '.join(map(str, wrong))} of {scores[0]['photographs']} "
                f"| {statistics.mean(wrong):.1f} | {cross_validated(features)} |"
            )
            print(lines[-1], flush=True)  # to stderr: Ray has stdout meanwhile
    print(*lines, sep="\n")


def cross_validated(features: Path) -> str:
    """Errors of standardised logistic regression, each photograph by a head that hasn't seen it."""
    table = pq.read_table(features / "shards", columns=["features", "label"])
    table = table.filter(pc.is_valid(table["features"]))
    y = np.array(table["label"].to_pylist())
    x = table["features"].combine_chunks().flatten().to_numpy().reshape(len(y), -1)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    found = cross_val_predict(head, x.astype(np.float32), y, cv=folds)
    return f"{int((found != y).sum())} of {len(y)}"


def speed(few: Bench, many: Bench, repeats: int) -> None:
    def timed(way: dict[str, str]) -> float:
        bench = few if way["base"] == "vgg16" else many
        return bench.extract(*(word for key in way for word in (f"--{key}", way[key]))).rate

    rates = in_turn(
        {
            **{told(way): lambda way=way: timed(way) for way in TIMED},
            "reading and decoding to 224 alone": lambda: many.peer("decode_224"),
        },
        repeats,
    )
    print("| `extract` | photographs a second | of the first |")
    print("|---|---|---|")
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / first:.1f} |")


def told(way: dict[str, str]) -> str:
    return "`" + " ".join(f"--{key} {value}" for key, value in way.items()) + "`"


if __name__ == "__main__":
    main()
