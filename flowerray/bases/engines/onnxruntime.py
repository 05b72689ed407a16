"""ONNX Runtime on CPUs: graphs that are uint8 arrays, one input, their outputs in one table."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError


class OnnxEngine:
    """A base as an ONNX graph, from uint8 pixels on."""

    def __init__(self, spec: BaseSpec, model: list[np.ndarray], threads: int) -> None:
        self._session = session(model[0].tobytes(), threads)
        self._input = self._session.get_inputs()[0].name
        self.feature_shape = tuple(self._session.get_outputs()[0].shape[1:])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        (features,) = self._session.run(None, {self._input: pixels})
        return np.asarray(features, np.float32)


class OnnxHead:
    """A head as an ONNX graph: features float16 (n, *feature_shape) to its outputs side by side."""

    def __init__(self, head: bytes, threads: int) -> None:
        self._session = session(head, threads)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.column_stack(self._session.run(None, {self._input: features}))


def session(graph: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise FlowerrayError(
            "ONNX Runtime is not installed: pip install 'flowerray[package]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of its own has a class of its own
        reason = str(error).partition("\n")[0]
        raise FlowerrayError(f"ONNX Runtime can't open the graph: {reason}") from None
