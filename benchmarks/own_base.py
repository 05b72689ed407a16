"""VGG16 as an ONNX file against the built-in one: features, labels, and end-to-end speed.

    python benchmarks/own_base.py flower_photos --work DIR [--repeats 3] [--number 400]
        [--only labels speed]

flower_photos holds train/CLASS and valid/CLASS. Keras exports the file, by tf2onnx. Speed is of
`extract` in steady state, all ways in turn. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measure import machine
from speed import Bench, in_turn

from flowerray.bases import hardware
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.train import train
from flowerray.pipeline.connection import connection
from flowerray.settings import ExtractSettings, LabelSettings, TrainSettings

EXPORT = """
import sys
import numpy as np
from flowerray.bases import weights
from flowerray.bases.engines.keras import import_keras, network
import_keras(2)
model = network("VGG16", (224, 224, 3))
model.set_weights(weights.load("vgg16", say=print).arrays)
model(np.zeros((1, 224, 224, 3), np.float32))
model.export(sys.argv[1], format="onnx", verbose=False)
"""
PIXELS = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": False,
    "image_mean": [103.939, 116.779, 123.68],
    "image_std": [1, 1, 1],
    "do_flip_channel_order": True,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--number", type=int, default=400, help="photographs in a run")
    parts = ["labels", "speed"]
    options.add_argument("--only", nargs="+", choices=parts, default=parts)
    chosen = options.parse_args()
    base = chosen.work.resolve() / "vgg16-onnx"
    if not base.is_dir():
        base.mkdir(parents=True)
        subprocess.run([sys.executable, "-c", EXPORT, base / "model.onnx"], check=True)
        (base / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    print(f"{machine()}, {datetime.date.today()}.\n")
    if "labels" in chosen.only:
        labels(chosen.photographs, chosen.work, str(base))
    if "speed" in chosen.only:
        print(
            f"\nMedians of {chosen.repeats} rounds in turn, {chosen.number:,} photographs each.\n"
        )
        bench = Bench(chosen.photographs.resolve(), chosen.work.resolve(), chosen.number)
        speed(bench, str(base), chosen.repeats)


def labels(photographs: Path, work: Path, base: str) -> None:
    """Each precision's features and labels of the photographs to validate, by both."""
    here = hardware.here()
    precisions = ["float32", *(p for p in ("bfloat16", "int8") if getattr(here, p))]
    print("| precision | largest difference of a feature | same label |")
    print("|---|---|---|")
    with connection(None):
        for precision in precisions:
            both = []
            for name in ("vgg16", base):
                out = work / f"{precision}-{Path(name).name}"
                extract(
                    ExtractSettings(
                        images=str(photographs),
                        out=str(out / "features"),
                        base=name,
                        precision=precision,
                    )
                )
                fitted = TrainSettings(features=str(out / "features"), out=str(out / "classifier"))
                train(fitted)
                label(
                    LabelSettings(
                        images=str(photographs / "valid"),
                        classifier=str(out / "classifier"),
                        out=str(out / "labels"),
                    )
                )
                both.append(
                    (_column(out / "features", "features"), _column(out / "labels", "label"))
                )
            (one, said), (other, told) = both
            apart = float(np.abs(np.stack(one) - np.stack(other)).max())
            same = sum(a == b for a, b in zip(said, told, strict=True))
            print(f"| {precision} | {apart:.5f} | {same} of {len(said)} |", flush=True)


def _column(directory: Path, name: str) -> list:
    table = pq.read_table(directory / "shards", columns=["uri", name]).sort_by("uri")
    return [np.asarray(v, np.float32) if name == "features" else v for v in table[name].to_pylist()]


def speed(bench: Bench, base: str, repeats: int) -> None:
    ways = {
        "built in": [],
        "as an ONNX file": ["--base", base],
        "built in, float32": ["--precision", "float32"],
        "as an ONNX file, float32": ["--base", base, "--precision", "float32"],
        "as an ONNX file, ONNX Runtime": ["--base", base, "--engine", "onnxruntime"],
    }
    rates = in_turn(
        {name: lambda words=words: bench.extract(*words).rate for name, words in ways.items()},
        repeats,
    )
    print("| VGG16 | photographs a second | of the built-in at that precision |")
    print("|---|---|---|")
    for name, rate in rates.items():
        single = "float32" in name or "Runtime" in name
        against = rates["built in, float32" if single else "built in"]
        print(f"| {name} | {rate:.1f} | {rate / against:.2f} |")


if __name__ == "__main__":
    main()
