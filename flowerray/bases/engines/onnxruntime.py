"""ONNX Runtime: ONNX bases on GPUs, and on CPUs where OpenVINO is not installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flowerray.bases.own.onnx_graph import PIXELS, graph_of
from flowerray.bases.spec import BaseSpec


class OnnxRuntimeEngine:
    """An ONNX base, ready on this actor's GPU, or on its CPUs."""

    def __init__(self, spec: BaseSpec, model: list[np.ndarray], threads: int) -> None:
        self._session = session(graph_of(spec, model).SerializeToString(), threads)
        self._batch = fixed_batch(self._session.get_inputs()[0].shape)
        nothing = np.zeros((1, spec.input_size, spec.input_size, 3), np.uint8)
        self.feature_shape: tuple[int, ...] = self(nothing).shape[1:]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return in_batches(self._run, pixels, self._batch)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {PIXELS: pixels})[0], np.float32)


def session(model: bytes, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` of `model` that computes in float32 on a GPU, if there
    is one that this process may use, or on so many CPU threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # Its threads wait by spinning, which other actors on the same CPUs would pay for.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
    there = cuda[0] in onnxruntime.get_available_providers()
    providers = [*([cuda] if there else []), "CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model, options, providers)


def fixed_batch(shape: list[Any]) -> int | None:
    """The batch that a graph's input of this shape takes, where it takes no other."""
    return shape[0] if isinstance(shape[0], int) else None


def in_batches(
    compute: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, batch: int | None
) -> np.ndarray:
    """What `compute` makes of `pixels`, of a graph with a fixed batch so many at a time; the last
    are filled up with black."""
    if batch is None:
        return compute(pixels)
    parts = []
    for start in range(0, len(pixels), batch):
        some = pixels[start : start + batch]
        filled = np.zeros((batch, *pixels.shape[1:]), pixels.dtype)
        filled[: len(some)] = some
        parts.append(np.array(compute(filled)[: len(some)], np.float32))
    return np.concatenate(parts)
