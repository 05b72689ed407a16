"""What Keras makes of a base and a head for a package, in a process of its own: the caller's output
stays clear of TensorFlow's, and its memory too."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowerray.bases.engines.keras import build, import_keras, open_head
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError

OPSET = 18  # of ONNX: the first whose Resize has antialiasing


def onnx_base(spec: BaseSpec, weights: list[np.ndarray]) -> bytes:
    """The base of `spec` in float32 as an ONNX file: uint8 pixels (n, size, size, 3) to features.

    Raises:
        FlowerrayError: Keras can't export it.
    """
    return _made("base", spec, weights, b"")


def onnx_head(head: bytes) -> bytes:
    """A ``head.keras`` as an ONNX file: float32 features (n, *feature_shape) to probabilities
    (n, classes) and novelty (n,); raises as `onnx_base`."""
    return _made("head", None, [], head)


def whole(spec: BaseSpec, weights: list[np.ndarray], head: bytes) -> bytes:
    """All of a package as a ``.keras`` file of Keras' own layers: uint8 photographs (n, h, w, 3) to
    a dictionary of probabilities (n, classes) and novelty (n,), float32; raises as `onnx_base`."""
    return _made("whole", spec, weights, head)


def _made(what: str, spec: BaseSpec | None, weights: list[np.ndarray], head: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="flowerray-") as name:
        directory = Path(name)
        fields = None if spec is None else dataclasses.asdict(replace(spec, precision="float32"))
        (directory / "spec.json").write_text(json.dumps(fields))
        named: dict[str, Any] = {f"{i:04d}": array for i, array in enumerate(weights)}
        np.savez(directory / "weights.npz", **named)
        (directory / "head.keras").write_bytes(head)
        done = subprocess.run(
            [sys.executable, "-m", "flowerray.packages.keras_models", what, name],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},  # the only one that tf2onnx exports
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise FlowerrayError(f"Keras can't export the {what}: {(said or ['it died'])[-1]}")
        return (directory / "made").read_bytes()


def _make(what: str, directory: Path) -> None:
    """In that process: ``made`` of the other files in `directory`."""
    keras = import_keras(os.cpu_count() or 1)
    base = head = None
    if what != "head":
        spec = BaseSpec.from_dict(json.loads((directory / "spec.json").read_text()))
        with np.load(directory / "weights.npz", allow_pickle=False) as arrays:
            base = build(spec, [arrays[name] for name in sorted(arrays.files)])
    if what != "base":
        head = _with_two_outputs(keras, open_head((directory / "head.keras").read_bytes()))
    if base is not None and head is not None:
        file = directory / "whole.keras"
        _joined(keras, spec, base, head).save(file)
        file.rename(directory / "made")
        return
    model = base or head
    # Keras exports what it has seen an input of.
    model(np.zeros((1, *model.input_shape[1:]), model.inputs[0].dtype))
    model.export(directory / "made", format="onnx", verbose=False, opset_version=OPSET)


def _with_two_outputs(keras: Any, head: Any) -> Any:
    """`head` before it joins probabilities and novelty, see ``flowerray.trust.novelty.attached``."""
    probabilities, novelty = head.layers[-1].input
    return keras.Model(head.inputs[0], [probabilities, keras.layers.Reshape(())(novelty)])


def _joined(keras: Any, spec: BaseSpec, base: Any, head: Any) -> Any:
    layers, size = keras.layers, spec.input_size
    interpolation = "nearest" if spec.resize == "nearest" else "bilinear"
    photographs = keras.Input((None, None, 3), dtype="uint8", name="photographs")
    resized = layers.Resizing(
        *(size, size, interpolation), antialias=interpolation == "bilinear", dtype="float32"
    )(photographs)
    features = base(keras.ops.round(resized))
    stored = layers.Activation("linear", dtype="float16", name="features")(features)
    probabilities, novelty = head(layers.Activation("linear", dtype="float32")(stored))
    return keras.Model(photographs, {"probabilities": probabilities, "novelty": novelty})


if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]))
