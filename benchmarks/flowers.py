"""Accuracy and time to fit on real photographs: the default against the article's way.

    python benchmarks/flowers.py flower_photos --work DIR [--seeds 0 1 2]

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

from flowerray.cluster import connection
from flowerray.extract import extract
from flowerray.settings import ExtractSettings, TrainSettings
from flowerray.train import TrainSummary, train

WAYS = {
    "default": (None, "logistic"),
    "right preparation, the article's head": (None, "article"),
    "article": ("article", "article"),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = options.parse_args()
    done: dict[str, list[TrainSummary]] = {}
    with connection(None):
        for way, (preparation, recipe) in WAYS.items():
            features = str(chosen.work / f"features-{preparation or 'vgg'}")
            extract(
                ExtractSettings(images=chosen.photographs, out=features, preparation=preparation)
            )
            for seed in chosen.seeds:
                out = chosen.work / "classifier"
                shutil.rmtree(out, ignore_errors=True)
                settings = TrainSettings(features=features, out=str(out), recipe=recipe, seed=seed)
                done.setdefault(way, []).append(train(settings))
    article = statistics.median(run.fit_seconds for run in done["article"])
    print(f"{machine()}, {datetime.date.today()}, seeds {', '.join(map(str, chosen.seeds))}.\n")
    print(
        "| features and head | errors of the validation photographs | fit, s | of the article's |"
    )
    print("|---|---|---|---|")
    for way, runs in done.items():
        errors = ", ".join(str(run.scores["errors"]) for run in runs)
        seconds = statistics.median(run.fit_seconds for run in runs)
        total = runs[0].scores["photographs"]
        print(f"| {way} | {errors} of {total} | {seconds:.1f} | {seconds / article:.3f} |")


if __name__ == "__main__":
    main()
