"""Features that are some rows of others."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np


class Rows:
    """Some `rows` (m,) of an `array` (n, *shape), perhaps on disk, read when asked for."""

    def __init__(self, array: Features, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape: tuple[int, ...] = (len(rows), *array.shape[1:])
        self.ndim: int = array.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.array[self.rows[key]]


Features: TypeAlias = "np.ndarray | Rows"
