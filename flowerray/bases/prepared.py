"""The prepared base: all that an actor needs to compute with a base, made in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowerray.bases.engines import Engine
from flowerray.bases.spec import BaseSpec

LARGEST_FLOAT16 = 65504
# Features as they are stored, float16 (n, *feature_shape), to what a head makes of them, (n, m).
Head = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PreparedBase:
    """A base whose precision and engine are decided: its spec, and the `model` that its engine
    opens: the weights, the bytes of a file of the user's own, or what OpenVINO made of either."""

    spec: BaseSpec
    model: list[np.ndarray]

    def open(self, threads: int) -> Engine:
        """The engine that the spec names, computing on so many CPU threads."""
        if self.spec.engine == "openvino":
            from flowerray.bases.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(self.spec, self.model, threads)
        if self.spec.engine == "onnxruntime":
            from flowerray.bases.engines.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(self.spec, self.model, threads)
        from flowerray.bases.engines.keras import KerasEngine

        return KerasEngine(self.spec, self.model, threads)


def as_stored(features: np.ndarray) -> np.ndarray:
    """Features as feature shards hold them, float16: an activation beyond what that can hold
    becomes the largest, not infinity. Heads see these alone, so that what was stored gives the
    labels that photographs give."""
    return np.clip(features, -LARGEST_FLOAT16, LARGEST_FLOAT16).astype(np.float16)
