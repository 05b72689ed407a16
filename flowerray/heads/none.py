"""`none` of the others: a class that is learned and never given as a label.

It lowers the confidence of what resembles what people called none of the classes. That they are
few is no reason to think little of them: together they weigh half as much as a class.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NONE = "none"  # as it is called in a classifier
NAMES = (NONE, "other")  # as a labelled set may call it
# Of the mean number of photographs that a class has; 0.25 and 1 taught as well on flowers, see
# benchmarks/teaching.py.
SHARE_OF_A_CLASS = 0.5


def names_of(given: str | None) -> tuple[str, ...]:
    """What it is called in a labelled set and in corrections; `given` where somebody says so."""
    return NAMES if given is None else (given, NONE)


def renamed(labels: pa.ChunkedArray | pa.Array, names: tuple[str, ...]) -> pa.ChunkedArray:
    """`labels` with NONE for each of `names`."""
    called = pc.is_in(labels, value_set=pa.array(names, pa.string()))
    return pc.if_else(called, NONE, labels)


def class_weights(labels: np.ndarray, classes: int, none: int | None) -> np.ndarray:
    """What multiplies the loss of each class, float64 (classes,): 1, and for `none` what brings it
    up to SHARE_OF_A_CLASS of a mean class. A few strangers among thousands would otherwise be
    passed over. It is never made less, since what is there is there.

    Multiply by the weights that classes have for another reason.

    Args:
        labels: class indices (n,) of what is trained on.
        none: its class index; None or without a photograph: all weigh 1.
    """
    weights = np.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    if none is not None and counts[none] and classes > 1:
        mean = np.delete(counts, none).mean()
        weights[none] = max(1.0, SHARE_OF_A_CLASS * mean / counts[none])
    return weights


def answers(probabilities: np.ndarray, none: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 (n,), -1 where `none` is likeliest, and confidences (n,): the probability of the
    likeliest class that is not `none`.

    The probability of `none` is missing from those of the classes, so it lowers the confidence of
    what resembles strangers, and one threshold keeps out both these and mix-ups.

    Args:
        probabilities: float (n, classes), with `none` among the classes.
        none: its class index; None: there is no such class.
    """
    if none is None:
        return probabilities.argmax(axis=1), probabilities.max(axis=1)
    real = probabilities.copy()
    real[:, none] = -1
    labels, confidence = real.argmax(axis=1), real.max(axis=1)
    return np.where(confidence >= probabilities[:, none], labels, -1), confidence
