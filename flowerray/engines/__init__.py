"""Engines turn pixels into features: one file each, all called alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from flowerray.bases import BaseSpec


class Engine(Protocol):
    """A base, perhaps with a head on it, ready on its device.

    Called with uint8 RGB pixels (n, size, size, 3), it returns float32 results (n, *shape):
    features, or with a head probabilities. `feature_shape` is that of the features either way.
    """

    feature_shape: tuple[int, ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray: ...


def open_engine(
    spec: BaseSpec, model: list[np.ndarray], threads: int, head: bytes | None = None
) -> Engine:
    """The engine that `spec` names, computing on `threads` CPU threads.

    `model` is what ``flowerray.precision.with_model`` gave: the weights, or what OpenVINO made of
    them, with its head behind it. `head` is a ``head.keras`` to put on another engine's base.
    """
    if spec.engine == "openvino":
        from flowerray.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(spec, model, threads)
    from flowerray.engines.keras import KerasEngine

    return KerasEngine(spec, model, threads, head)
