"""Engines turn pixels into features: one file each, all called alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Engine(Protocol):
    """A base, perhaps with a head on it, ready on its device.

    Called with uint8 RGB pixels (n, size, size, 3), it returns float32 results (n, *shape):
    features, or with a head probabilities. `feature_shape` is that of the features either way.
    """

    feature_shape: tuple[int, ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray: ...
