"""Accuracy and time to fit on real photographs: each recipe against the article's way.

    python benchmarks/flowers.py flower_photos --work DIR [--seeds 0 1 2] [--only RECIPE ...]

flower_photos holds train/CLASS and valid/CLASS. Features in DIR are used again; heads are fitted
anew in one run, so that their times compare. Prints a Markdown table; the calibration error is that
after scaling, of the evidence: cross-validated but for the article's head.

    python benchmarks/flowers.py flower_photos --work DIR --only finetune

does the fine-tuned bases alone.
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
from flowerray.heads import classifier
from flowerray.pipeline.connection import connection
from flowerray.settings import RECIPES, ExtractSettings, TrainSettings

FINETUNE = {"layer": "block4_pool", "augment": "mirror"}
FINETUNE_LITE = {
    "base": "efficientnet-lite2",
    "layer": "block6a_project_conv",
    "augment": "mirror",
}
WAYS: dict[str, tuple[dict[str, str], str]] = {
    "default (`--recipe mlp`)": ({}, "mlp"),
    "`--recipe logistic`": ({}, "logistic"),
    "`--layer block4_pool --augment mirror`, `--recipe finetune`": (FINETUNE, "finetune"),
    "`--base efficientnet-lite2 --layer block6a_project_conv --augment mirror`, "
    "`--recipe finetune`": (FINETUNE_LITE, "finetune"),
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
    unsure: dict[str, list[float]] = {}
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
                calibration = classifier.load(str(out)).about["calibration"]
                unsure.setdefault(way, []).append(calibration["ece_after"])
    last = statistics.median(run.fit_seconds for run in list(done.values())[-1])
    print(f"{machine()}, {datetime.date.today()}, seeds {', '.join(map(str, chosen.seeds))}.\n")
    print(
        "| features and head | errors of those to validate | mean | fit, s | of the last's "
        "| calibration error |\n|---|---|---|---|---|---|"
    )
    for way, runs in done.items():
        errors = [run.scores["errors"] for run in runs]
        calibrated = ", ".join(f"{error:.3f}" for error in unsure[way])
        seconds = statistics.median(run.fit_seconds for run in runs)
        total = runs[0].scores["photographs"]
        print(
            f"| {way} | {', '.join(map(str, errors))} of {total} | {statistics.mean(errors):.1f} "
            f"| {seconds:.1f} | {seconds / last:.3f} | {calibrated} |"
        )


if __name__ == "__main__":
    main()
