"""A classifier in one file, which other programs run: resize, preparation, base and head as one
graph, and with it what must be known of it. One file a format, all called alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Package(Protocol):
    """A package in the making; its `kind` is the format with its version."""

    kind: str

    def probabilities(self, photographs: np.ndarray) -> np.ndarray:
        """Of photographs uint8 (n, h, w, 3) those of the classes, float32 (n, classes)."""

    def files(self, metadata: dict[str, str]) -> list[bytes]:
        """The content of its files, `metadata` in them."""
