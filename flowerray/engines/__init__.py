"""Engines turn pixels into features: one file each, all called alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from flowerray.bases import BaseSpec


class Engine(Protocol):
    """A base, ready on its device.

    Called with uint8 RGB pixels (n, size, size, 3), it returns float32 features
    (n, *feature_shape).
    """

    feature_shape: tuple[int, ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray: ...


def open_engine(spec: BaseSpec, weights: list[np.ndarray], threads: int) -> Engine:
    """The engine that `spec` names, holding `weights`, computing on `threads` CPU threads."""
    if spec.engine == "thumbnail":
        from flowerray.engines.thumbnail import ThumbnailEngine

        return ThumbnailEngine(spec)
    from flowerray.engines.keras import KerasEngine

    return KerasEngine(spec, weights, threads)
