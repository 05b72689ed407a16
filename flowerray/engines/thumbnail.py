"""No network: the photograph itself, averaged down to a few pixels."""

from __future__ import annotations

import numpy as np

from flowerray.bases import BaseSpec

SIDE = 8  # pixels of the thumbnail; an input size is a multiple of it


class ThumbnailEngine:
    """Mean colours of an 8x8 grid, in [0, 1]: features (n, 192).

    What a head can do with these needs no pretrained base, so it is the baseline to beat; and they
    cost next to nothing, so the rest of the job shows in benchmarks and tests.
    """

    feature_shape: tuple[int, ...] = (SIDE * SIDE * 3,)

    def __init__(self, spec: BaseSpec) -> None:
        self._cell = spec.input_size // SIDE

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        cells = pixels.reshape(len(pixels), SIDE, self._cell, SIDE, self._cell, 3)
        means = cells.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        return means.reshape(len(pixels), -1)
