"""A head of dense layers on stored embeddings, computed by numpy: as fast to open as to compute.

It says what its ``head.keras`` says, in float64: so of the same features it makes the same of one
as of a million, whatever the order in which a machine adds.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerray.heads.dense import DenseLayers

ROWS_AT_ONCE = 4096  # what fits the processor's caches


@dataclass(frozen=True)
class DenseHead:
    """`layers` from an embedding of unit length to the classes' logits, ReLU between them;
    `centres` float32 (m, width) of unit length and the `threshold` of the novelty (see
    ``flowerray.trust.novelty``)."""

    layers: DenseLayers
    centres: np.ndarray
    threshold: float

    @classmethod
    def of(cls, model: Any, centres: np.ndarray, threshold: float) -> DenseHead:
        """The dense layers of the Keras `model`, whose input is an embedding."""
        layers = [
            tuple(layer.get_weights())
            for layer in model.layers
            if type(layer).__name__ == "Dense" and layer.name != "centres"
        ]
        return cls(layers, centres, threshold)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Of features float16 (n, width) the probabilities of the classes and, in one column more,
        the novelty: float32 (n, classes + 1)."""
        parts = [
            self._of_some(features[start : start + ROWS_AT_ONCE].astype(np.float64))
            for start in range(0, len(features), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.classes + 1), np.float32)

    def _of_some(self, rows: np.ndarray) -> np.ndarray:
        length = np.sqrt(np.maximum(np.square(rows).sum(axis=1, keepdims=True), 1e-12))
        unit = rows = rows / length
        for number, (kernel, bias) in enumerate(self.layers):
            if number:
                rows = np.maximum(rows, 0)
            rows = rows @ kernel.astype(np.float64) + bias
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        nearest = (unit @ self.centres.T.astype(np.float64)).max(axis=1, keepdims=True)
        novelty = (1 - nearest) / self.threshold
        found = [powers / powers.sum(axis=1, keepdims=True), novelty]
        return np.concatenate(found, axis=1).astype(np.float32)

    @property
    def classes(self) -> int:
        """How many probabilities it gives."""
        return len(self.layers[-1][1])

    def to_bytes(self) -> bytes:
        """As ``head.npz`` holds it."""
        stream = io.BytesIO()
        arrays = {f"kernel_{i}": kernel for i, (kernel, _) in enumerate(self.layers)}
        arrays |= {f"bias_{i}": bias for i, (_, bias) in enumerate(self.layers)}
        threshold = np.array(self.threshold)
        np.savez(stream, allow_pickle=False, **arrays, centres=self.centres, threshold=threshold)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> DenseHead:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: it isn't that.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                count = sum(name.startswith("kernel_") for name in arrays)
                layers = [(arrays[f"kernel_{i}"], arrays[f"bias_{i}"]) for i in range(count)]
                return cls(layers, arrays["centres"], float(arrays["threshold"]))
        except (KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from None
