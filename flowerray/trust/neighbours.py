"""Which photographs of a pile have embeddings that are nearly the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from flowerray.bases import hardware
from flowerray.heads.copies import connected
from flowerray.heads.dense import one_thread
from flowerray.progress import Progress

SKETCHED = 63  # directions; with the rest's length a sketch has 64 values
SAMPLE = 20_000  # rows that the directions are found by
TILE = 1024  # rows compared with as many others at once, by each thread: 4 MB of cosines
FEW = 1 << 14  # pairs of a tile that are compared one by one
ROUNDING = 1e-3  # of float32, and more


def near_groups(embeddings: np.ndarray, least: float) -> np.ndarray:
    """Group numbers (n,) of rows whose cosine is at least `least`, and of those near these.

    Every row is compared with every other, but mostly by a sketch: its coordinates along the
    SKETCHED directions that hold most of a sample, and the length of what is left. That is of unit
    length as well, and by Cauchy and Schwarz the cosine of two sketches is never below the whole
    rows': what it excludes need not be looked at, and nothing is lost. Whole rows are compared
    where the sketches leave it open, unless they are in one group already. Memory is 256 bytes a
    row beside the `embeddings`, which may lie on disk; time grows with the square of their number,
    see ``benchmarks/copies.py``.

    Args:
        embeddings: float16 or float32 (n, width); lengths don't matter.
        least: above 0.
    """
    count, progress = len(embeddings), Progress("compare", len(embeddings))
    progress.ready(0)
    groups = np.arange(count)
    with one_thread(), ThreadPoolExecutor(hardware.available_cpus()) as pool:
        sketches = _sketches(embeddings)
        for start in range(0, count, TILE):
            compared = partial(_compared, embeddings, sketches, groups, least, start)
            found = list(pool.map(compared, range(start, count, TILE)))
            first, second = (np.concatenate(rows) for rows in zip(*found, strict=True))
            if len(first):
                groups = connected(groups[first], groups[second], count)[groups]
            progress.add(min(TILE, count - start), 0)
    progress.finish()
    return groups


def _compared(
    embeddings: np.ndarray,
    sketches: np.ndarray,
    groups: np.ndarray,
    least: float,
    start: int,
    other: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What is near of TILE rows from `start` on and TILE from `other` on, beyond what is in one of
    the `groups` already: pairs (m,), m below twice TILE, that connect the same as all of them."""
    here, there = sketches[start : start + TILE], sketches[other : other + TILE]
    left_open = np.flatnonzero(here @ there.T >= least - ROUNDING)
    first, second = left_open // len(there) + start, left_open % len(there) + other
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    if len(first) < FEW:
        cosines = np.einsum("ij,ij->i", _unit(embeddings[first]), _unit(embeddings[second]))
    else:
        whole = (_unit(embeddings[row : row + TILE]) for row in (start, other))
        cosines = np.matmul(next(whole), next(whole).T)[first - start, second - other]
    near = cosines >= least
    both = np.concatenate([np.arange(start, start + TILE), np.arange(other, other + TILE)])
    together = connected(first[near] - start, second[near] - other + TILE, len(both))
    heads = np.unique(together, return_index=True)[1][together]
    joined = heads != np.arange(len(both))
    return both[heads[joined]], both[joined]


def _sketches(embeddings: np.ndarray) -> np.ndarray:
    """float32 (n, SKETCHED + 1 at most), of unit length."""
    sample = _unit(embeddings[:: max(1, len(embeddings) // SAMPLE)])
    directions = np.linalg.eigh(sample.T @ sample)[1][:, -SKETCHED:]
    found = np.empty((len(embeddings), directions.shape[1] + 1), np.float32)
    for start in range(0, len(embeddings), TILE):
        rows = _unit(embeddings[start : start + TILE])
        along = rows @ directions
        left = np.square(rows).sum(axis=1) - np.square(along).sum(axis=1)
        found[start : start + TILE] = np.column_stack([along, np.sqrt(np.maximum(left, 0))])
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    found = np.asarray(rows, np.float32)
    unit: np.ndarray = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    return unit
