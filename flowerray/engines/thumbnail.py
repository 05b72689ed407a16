"""No network: the photograph itself, averaged down to a few pixels."""

from __future__ import annotations

import numpy as np

from flowerray.bases import BaseSpec
from flowerray.engines.keras import import_keras, open_head

SIDE = 8  # pixels of the thumbnail; an input size is a multiple of it


class ThumbnailEngine:
    """Mean colours of an 8x8 grid, in [0, 1]: features (n, 192).

    What a head can do with these needs no pretrained base, so it is the baseline to beat; and they
    cost next to nothing, so the rest of the job shows in benchmarks and tests.
    """

    feature_shape: tuple[int, ...] = (SIDE * SIDE * 3,)

    def __init__(self, spec: BaseSpec, threads: int, head: bytes | None) -> None:
        self._cell = spec.input_size // SIDE
        self._head = None
        if head is not None:
            import_keras(threads)
            self._head = open_head(head)
            self._head.compile(jit_compile=False)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        cells = pixels.reshape(len(pixels), SIDE, self._cell, SIDE, self._cell, 3)
        means = cells.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        features = means.reshape(len(pixels), -1)
        if self._head is None:
            return features
        return np.asarray(self._head.predict_on_batch(features), np.float32)
