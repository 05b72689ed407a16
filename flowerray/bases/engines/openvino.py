"""OpenVINO on CPUs: the Keras model or the ONNX graph of a spec, converted, for int8 quantised by
nncf.

A converted model is two uint8 arrays: its graph (XML) and its constants. It needs no TensorFlow,
which saves an actor seconds of start-up and hundreds of megabytes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowerray.bases.engines.keras import build, import_keras, open_head
from flowerray.bases.engines.onnxruntime import in_batches
from flowerray.bases.own.onnx_graph import graph_of
from flowerray.bases.spec import BaseSpec

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # int8: of what stays unquantised


class OpenVinoEngine:
    """A converted base, ready on this machine's CPU."""

    def __init__(self, spec: BaseSpec, model: list[np.ndarray], threads: int) -> None:
        core = _import_openvino().Core()
        read = _from_arrays(core, model)
        shape = read.get_rt_info(["flowerray", "feature_shape"]).astype(str)
        self.feature_shape: tuple[int, ...] = tuple(int(side) for side in shape.split(","))
        self._compiled = _compiled(core, read, spec.precision, threads)
        sides = read.input(0).partial_shape[0]
        self._batch = None if sides.is_dynamic else sides.get_length()
        self._round_features = spec.precision == "bfloat16" and spec.pool != "embedding"

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        result = in_batches(self._run, pixels, self._batch)
        if self._round_features:
            # Its last sums are float32. As bfloat16, which Keras gives, they compress better.
            bits = result.view(np.uint32)
            bits += np.uint32(0x8000)
            bits &= np.uint32(0xFFFF0000)
        return result

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        return np.array(self._compiled(pixels)[0], np.float32)  # a copy: OpenVINO reuses its own


class OpenVinoHead:
    """A converted head: features float16 (n, *feature_shape) to what the head makes of them."""

    def __init__(self, head: list[np.ndarray], precision: str, threads: int) -> None:
        core = _import_openvino().Core()
        self._compiled = _compiled(core, _from_arrays(core, head), precision, threads)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.array(self._compiled(features.astype(np.float32))[0], np.float32)


def _compiled(core: Any, model: Any, precision: str, threads: int) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Each actor would pin itself to the first CPUs, beside all the others.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", options)


def convert(
    spec: BaseSpec, weights: list[np.ndarray], calibration: np.ndarray | None
) -> list[np.ndarray]:
    """The base of `spec`, converted.

    Args:
        weights: the Keras model's, or the bytes of a file of the user's own.
        calibration: uint8 pixels (n, size, size, 3); with them the base is quantised to int8, the
            ranges of its activations taken from these photographs.
    """
    openvino = _import_openvino()
    if spec.is_onnx:
        graph = graph_of(spec, weights).SerializeToString()
        model = openvino.Core().read_model(graph)
    else:
        import_keras(1)
        built = build(replace(spec, precision="float32"), weights)  # OpenVINO rounds it itself
        model = openvino.convert_model(built)
    if calibration is not None:
        import nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)
        dataset = nncf.Dataset([pixels[None] for pixels in calibration])
        model = nncf.quantize(model, dataset, subset_size=len(calibration))
    shape = ",".join(map(str, _feature_shape(openvino.Core(), model, spec.input_size)))
    model.set_rt_info(shape, ["flowerray", "feature_shape"])
    return _to_arrays(model)


def _feature_shape(core: Any, model: Any, side: int) -> tuple[int, ...]:
    sides = model.output(0).partial_shape
    if sides.rank.is_static and all(one.is_static for one in list(sides)[1:]):
        return tuple(one.get_length() for one in list(sides)[1:])
    batch = model.input(0).partial_shape[0]
    black = np.zeros((1 if batch.is_dynamic else batch.get_length(), side, side, 3), np.uint8)
    return _compiled(core, model, "float32", 1)(black)[0].shape[1:]


def convert_head(head: bytes) -> list[np.ndarray]:
    """The head in a ``head.keras``, converted: features to probabilities."""
    openvino = _import_openvino()
    import_keras(1)
    return _to_arrays(openvino.convert_model(open_head(head)))


def _import_openvino() -> Any:
    os.environ["CI"] = "true"  # how openvino-telemetry is told to send nothing
    import openvino

    return openvino


def _to_arrays(model: Any) -> list[np.ndarray]:
    import openvino

    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / name for name in ("model.xml", "model.bin")]
        openvino.serialize(model, *map(str, files))
        return [np.fromfile(file, np.uint8) for file in files]


def _from_arrays(core: Any, model: list[np.ndarray]) -> Any:
    graph, constants = (array.tobytes() for array in model)
    return core.read_model(graph, constants)
