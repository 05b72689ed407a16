"""Labels of a packaged classifier, run by other programs, against those of `flowerray label`.

    python benchmarks/packaged.py flower_photos --work DIR

flower_photos holds train/CLASS and valid/CLASS; what is in DIR already is used again. Every
photograph is given whole, and with JPEGs at the reduced scale at which flowerray decodes them.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import machine
from PIL import Image, ImageOps

import flowerray as fr
from flowerray.pipeline.connection import connection

Call = Callable[[np.ndarray], Any]  # of uint8 (1, h, w, 3), float32 (1, classes)
FORMATS = {"onnx": "flowers.onnx", "openvino": "flowers.xml", "keras": "flowers.keras"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    chosen = options.parse_args()
    work, valid = chosen.work, chosen.photographs / "valid"
    with connection(None):
        fr.extract(chosen.photographs, out=work / "features")
        fr.train(work / "features", out=work / "classifier")
        fr.label(valid, classifier=work / "classifier", out=work / "labels")
        for format, name in FORMATS.items():
            out = work / name
            fr.package(work / "classifier", out=out, format=format, overwrite=True)
        fr.label(valid, classifier=work / FORMATS["onnx"], out=work / "packaged")
    classes = fr.load(work / "classifier").classes
    own = labels_in(work / "labels")
    print(f"\n{machine()}, {datetime.date.today()}, {len(own)} photographs.\n")
    print("| package | the same label | largest difference of a confidence |")
    print("|---|---|---|")
    tell("`flowerray label` with the ONNX file", own, labels_in(work / "packaged"))
    for name, call in opened(work):
        for how, side in (("whole", None), ("at a reduced scale", 224)):
            found = {uri: best(call(photograph(uri, side)), classes) for uri in own}
            tell(f"{name}, {how}", own, found)


def opened(work: Path) -> Iterator[tuple[str, Call]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(work / FORMATS["onnx"])
    yield "ONNX Runtime", lambda pixels: session.run(["probabilities"], {"photographs": pixels})[0]
    import openvino

    model = openvino.Core().compile_model(work / FORMATS["openvino"], "CPU")
    yield "OpenVINO", lambda pixels: model(pixels)["probabilities"]
    import keras

    network = keras.saving.load_model(work / FORMATS["keras"], safe_mode=True)
    yield "Keras", lambda pixels: np.asarray(network(pixels)["probabilities"])


def photograph(uri: str, side: int | None) -> np.ndarray:
    image = Image.open(uri)
    if side is not None:
        image.draft("RGB", (side, side))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[None]


def best(probabilities: np.ndarray, classes: list[str]) -> tuple[str, float]:
    (row,) = probabilities
    return classes[int(row.argmax())], float(row.max())


def labels_in(directory: Path) -> dict[str, tuple[str, float]]:
    files = sorted((directory / "shards").iterdir(), key=os.fspath)
    table = pa.concat_tables([pq.read_table(file) for file in files])
    found = (table[name].to_pylist() for name in ("uri", "label", "confidence"))
    return {uri: (label, sure) for uri, label, sure in zip(*found, strict=True)}


def tell(name: str, own: dict[str, tuple[str, float]], found: dict[str, tuple[str, float]]) -> None:
    same = sum(own[uri][0] == found[uri][0] for uri in own)
    apart = max(abs(own[uri][1] - found[uri][1]) for uri in own)
    print(f"| {name} | {same} of {len(own)} | {apart:.3f} |", flush=True)


if __name__ == "__main__":
    main()
