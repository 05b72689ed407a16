"""The class that stands for none of the others: learned as a class, and never given as a label.

It lowers the confidence of what resembles what people called none of the classes. That they are
few is no reason to think little of them: together they weigh half as much as a class.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NONE_CLASS = "none"  # as it is called in a classifier
NAMES = (NONE_CLASS, "other")  # as a labelled set may call it
# Of the classes' mean weight, for all of it. Measured with 80 decisions on piles of flowers, see
# benchmarks/teaching.py.
SHARE = 0.5


def names_of(given: str | None) -> tuple[str, ...]:
    """What it is called in a labelled set and in corrections; `given` where somebody says so."""
    return NAMES if given is None else (given, NONE_CLASS)


def renamed(labels: pa.ChunkedArray | pa.Array, names: tuple[str, ...]) -> pa.ChunkedArray:
    """`labels` with NONE_CLASS for each of `names`."""
    called = pc.is_in(labels, value_set=pa.array(names, pa.string()))
    return pc.if_else(called, NONE_CLASS, labels)


def weighted(counts: np.ndarray, weights: np.ndarray, none: int) -> np.ndarray:
    """`weights` (classes,) of photographs, those of class number `none` raised until together they
    weigh SHARE of the mean of the other classes; `counts` (classes,) are the photographs."""
    whole = counts * weights
    wanted = SHARE * np.delete(whole, none).mean()
    raised = weights.astype(np.float64).copy()
    raised[none] = max(weights[none], wanted / max(counts[none], 1))
    return raised
