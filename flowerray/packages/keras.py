"""A package as Keras' own file, and what other formats have Keras export.

Keras does it in a process of its own: the caller's output stays clear of TensorFlow's.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from flowerray.bases.engines.keras import build, import_keras, open_head
from flowerray.bases.hardware import available_cpus
from flowerray.bases.own.onnx_graph import graph_of
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError, UsageError
from flowerray.packages.onnx import OPSET, check_squashed, filter_of


class KerasPackage:
    """One ``.keras`` file of Keras' own layers, which loads in its safe mode: photographs to a
    dictionary of probabilities and novelty.

    Raises:
        UsageError: the base is none of Keras', or photographs are to be cropped.
        FlowerrayError: as `exported`.
    """

    def __init__(self, spec: BaseSpec, weights: list[np.ndarray], head: bytes) -> None:
        if spec.is_onnx:
            raise UsageError(
                f"{spec.base} is an ONNX file, which Keras doesn't read: --format onnx"
            )
        check_squashed(spec, "keras")
        filter_of(spec)
        (self.file,) = _made(["package"], spec, weights, head)
        self.kind = f"Keras {version('keras')}"
        self._model: Any = None

    def probabilities(self, photographs: np.ndarray) -> np.ndarray:
        """See ``flowerray.packages.Package``."""
        if self._model is None:
            import_keras(available_cpus())
            self._model = open_head(self.file)
        return np.asarray(self._model(photographs)["probabilities"])

    def files(self, metadata: dict[str, str]) -> list[bytes]:
        """See ``flowerray.packages.Package``: a ``.keras`` is a ZIP, which holds them beside."""
        whole = io.BytesIO(self.file)
        with zipfile.ZipFile(whole, "a") as archive:
            for key, value in metadata.items():
                archive.writestr(f"flowerray/{key}", value)
        return [whole.getvalue()]


def exported(spec: BaseSpec, weights: list[np.ndarray], head: bytes) -> list[bytes]:
    """The base of `spec` in float32 as an ONNX file, uint8 pixels (n, size, size, 3) to features,
    and a ``head.keras`` as another, float32 features (n, *feature_shape) to probabilities
    (n, classes) and novelty (n,).

    Raises:
        FlowerrayError: Keras can't export it.
    """
    if spec.is_onnx:
        return [graph_of(spec, weights).SerializeToString(), *_made(["head"], spec, [], head)]
    return _made(["base", "head"], spec, weights, head)


def _made(asked: list[str], spec: BaseSpec, weights: list[np.ndarray], head: bytes) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="flowerray-") as name:
        directory = Path(name)
        fields = dataclasses.asdict(replace(spec, precision="float32"))
        (directory / "spec.json").write_text(json.dumps(fields))
        named: dict[str, Any] = {f"{i:04d}": array for i, array in enumerate(weights)}
        np.savez(directory / "weights.npz", **named)
        (directory / "head.keras").write_bytes(head)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "flowerray.packages.keras", name, *asked],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},  # the only one that tf2onnx exports
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise FlowerrayError(f"Keras can't export {spec.base}: {(said or ['it died'])[-1]}")
        return [(directory / f"{one}.made").read_bytes() for one in asked]


def _make(directory: Path, asked: list[str]) -> None:
    """In that process: what is `asked` for, of the files in `directory`."""
    keras = import_keras(available_cpus())
    spec = BaseSpec.from_dict(json.loads((directory / "spec.json").read_text()))
    for name in asked:
        made = directory / f"{name}.made"
        if name == "package":
            file = directory / "package.keras"
            _joined(keras, spec, _base(spec, directory), _head(keras, directory)).save(file)
            file.rename(made)
            continue
        model = _base(spec, directory) if name == "base" else _head(keras, directory)
        # Keras exports what it has seen an input of.
        model(np.zeros((1, *model.input_shape[1:]), model.inputs[0].dtype))
        model.export(made, format="onnx", verbose=False, opset_version=OPSET)


def _base(spec: BaseSpec, directory: Path) -> Any:
    with np.load(directory / "weights.npz", allow_pickle=False) as arrays:
        return build(spec, [arrays[name] for name in sorted(arrays.files)])


def _head(keras: Any, directory: Path) -> Any:
    """The head before it joins probabilities and novelty, which has the two as its outputs; see
    ``flowerray.trust.novelty.attached``."""
    head = open_head((directory / "head.keras").read_bytes())
    probabilities, novelty = head.layers[-1].input
    novelty = keras.layers.Reshape((), name="one_novelty")(novelty)
    return keras.Model(head.inputs[0], [probabilities, novelty])


def _joined(keras: Any, spec: BaseSpec, base: Any, head: Any) -> Any:
    """Photographs to probabilities and novelty, by Keras' own layers alone."""
    layers, size = keras.layers, spec.input_size
    interpolation = spec.resize.removesuffix("-dct")
    photographs = keras.Input((None, None, 3), dtype="uint8", name="photographs")
    resized = layers.Resizing(
        *(size, size, interpolation), antialias=interpolation != "nearest", dtype="float32"
    )(photographs)
    features = base(keras.ops.round(resized))
    stored = layers.Activation("linear", dtype="float16", name="features")(features)
    probabilities, novelty = head(layers.Activation("linear", dtype="float32")(stored))
    return keras.Model(photographs, {"probabilities": probabilities, "novelty": novelty})


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2:])
