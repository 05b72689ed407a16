"""Accuracy and time to fit on real photographs: each recipe against the article's way.

    python benchmarks/flowers.py flower_photos --work DIR [--seeds 0 1 2] [--only RECIPE ...]

flower_photos holds train/CLASS and valid/CLASS. Features in DIR are used again; heads are fitted
anew in one run, so that their times compare. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import statistics
from pathlib import Path

from measure import machine

from flowerray.commands.extract import extract
from flowerray.commands.train import TrainSummary, train
from flowerray.pipeline.connection import connection
from flowerray.settings import RECIPES, ExtractSettings, TrainSettings

FINETUNE = {"layer": "block4_pool", "augment": "mirror"}
WAYS: dict[str, tuple[dict[str, str], str]] = {
    "default (`--recipe mlp`)": ({}, "mlp"),
    "`--recipe logistic`": ({}, "logistic"),
    "`--layer block4_pool --augment mirror`, `--recipe finetune`": (FINETUNE, "finetune"),
    "right preparation, `--recipe article`": ({"pool": "none"}, "article"),
    "`--preparation article --recipe article`": (
        {"preparation": "article", "pool": "none"},
        "article",
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES)
    chosen = options.parse_args()
    done: dict[str, list[TrainSummary]] = {}
    with connection(None):
        for way, (made, recipe) in WAYS.items():
            if recipe not in chosen.only:
                continue
            features = str(chosen.work / "-".join(["features", *made.values()]))
            extract(ExtractSettings(images=chosen.photographs, out=features, **made))
            for seed in chosen.seeds:
                out = chosen.work / "classifier"
                shutil.rmtree(out, ignore_errors=True)
                settings = TrainSettings(features=features, out=str(out), recipe=recipe, seed=seed)
                done.setdefault(way, []).append(train(settings))
    article = statistics.median(run.fit_seconds for run in list(done.values())[-1])
    print(f"{machine()}, {datetime.date.today()}, seeds {', '.join(map(str, chosen.seeds))}.\n")
    print("| features and head | errors of the validation photographs | fit, s | of the last's |")
    print("|---|---|---|---|")
    for way, runs in done.items():
        errors = ", ".join(str(run.scores["errors"]) for run in runs)
        seconds = statistics.median(run.fit_seconds for run in runs)
        total = runs[0].scores["photographs"]
        print(f"| {way} | {errors} of {total} | {seconds:.1f} | {seconds / article:.3f} |")


if __name__ == "__main__":
    main()
