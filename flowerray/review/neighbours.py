"""Which photographs of a pile look alike: their embeddings in one file, mapped into memory."""

from __future__ import annotations

import tempfile
from threading import Lock

import numpy as np

from flowerray.outputs.stored import StoredFeatures
from flowerray.review.pile import Pile

BLOCK = 1 << 16  # rows compared at once


class Neighbours:
    """The embeddings of a pile's rows, float16 (n, width), zeros where there are none. They are
    written once, when somebody first asks, to a passing file: so a look at all of a million takes a
    second or two, and their memory is the system's to take back."""

    def __init__(self, pile: Pile, stored: StoredFeatures) -> None:
        self._pile, self._stored = pile, stored
        self._lock = Lock()
        self._embeddings: np.ndarray | None = None

    @property
    def embeddings(self) -> np.ndarray:
        """All of them, which the first who asks waits for."""
        with self._lock:
            if self._embeddings is None:
                self._embeddings = self._written()
            return self._embeddings

    def like(self, row: int) -> np.ndarray:
        """The other rows, those whose embedding has the largest cosine with that of `row` first."""
        embeddings = self.embeddings
        asked = np.asarray(embeddings[row], np.float32)
        cosines = np.empty(len(embeddings), np.float32)
        for start in range(0, len(embeddings), BLOCK):
            block = np.asarray(embeddings[start : start + BLOCK], np.float32)
            cosines[start : start + BLOCK] = block @ asked
        cosines[row] = np.inf
        return np.argsort(-cosines, kind="stable")

    def _written(self) -> np.ndarray:
        shape = (self._pile.listed, self._stored.width)
        with tempfile.TemporaryFile(prefix="flowerray-review-") as file:  # gone with the mapping
            file.truncate(max(1, shape[0] * shape[1] * 2))
            mapped = np.memmap(file, np.float16, "r+", shape=shape)
        for start, name, uris in self._pile.chunks():
            values, there = self._stored.values(self._stored.of(name, uris))
            mapped[start : start + len(uris)][there] = values.reshape(len(values), -1)
        return mapped
