"""Photographs that are there more than once: the same bytes, or the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerray.heads.copies import connected

# pHash of 16x16 frequencies. Measured on 1,650 photographs of three flowers: copies of 200 of
# them, at a fifth to one and a half times the size and JPEG quality 30 to 90, differ in at most 12
# of the 256 bits; of all 1.36 million pairs 11 differ in at most 32, all of them one photograph
# twice, five in other colours; no pair of different scenes differs in fewer than 68.
HASH_SIDE = 16
HASH_BITS = HASH_SIDE**2
NEAR_BITS = 32
# In a pile embeddings tell which hashes to compare, so these may differ in more bits. Measured on
# the same photographs and VGG16 by ``benchmarks/copies.py``: copies at quality 30 to 90, halved, or
# half again as large have a cosine of 0.964 or more; of those that lost 3 and 5% of width and
# height 97 and 95 in 100 are found, which differ in up to 58 bits.
NEAR_COSINE = 0.95
SAME_SCENE_BITS = 64
PAIRS_AT_ONCE = 1 << 18  # as many as fit the processor's cache


@dataclass(frozen=True)
class Copies:
    """m pairs of photographs that are the same one: rows `first` < `second`, both (m,), the number
    of `bits` in which their perceptual hashes differ, and whether their bytes are `exact`ly the
    same."""

    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray
    exact: np.ndarray

    def chosen(self, rows: np.ndarray) -> Copies:
        """These pairs alone, by index or mask."""
        return Copies(self.first[rows], self.second[rows], self.bits[rows], self.exact[rows])

    def both_ways(self) -> Copies:
        """Each pair twice, the second time the other way round."""
        return Copies(
            np.concatenate((self.first, self.second)),
            np.concatenate((self.second, self.first)),
            np.tile(self.bits, 2),
            np.tile(self.exact, 2),
        )

    def nearest(self) -> Copies:
        """For each `second` its nearest `first`; the nearest pairs of all come first."""
        by_second = self.chosen(np.lexsort((self.first, self.bits, ~self.exact, self.second)))
        one_each = by_second.chosen(np.unique(by_second.second, return_index=True)[1])
        return one_each.chosen(np.lexsort((one_each.second, one_each.bits, ~one_each.exact)))

    def groups(self, photographs: int) -> np.ndarray:
        """A number for each of the `photographs`, the same for copies, and copies of copies."""
        return connected(self.first, self.second, photographs)

    def detail(self, pair: int) -> str:
        """What is the same about `pair`."""
        return same_about(self.exact[pair], self.bits[pair])


def same_about(exact: bool, bits: int) -> str:
    """What is the same about two copies."""
    return "same bytes" if exact else f"{bits} of {HASH_BITS} hash bits differ"


def near_pairs(hashes: np.ndarray, most_bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of `hashes` uint64 (n, words) that differ in at most `most_bits` bits.

    Every pair is compared, a block at a time: 100,000 hashes of four words take about 25 s. One
    that differs in few bits differs in very few of some word (the pigeonhole principle), and the
    whole is counted for such pairs alone. Returns the lower and the higher row and the number of
    bits, each int64 (m,).
    """
    count, words = hashes.shape
    rows = max(1, PAIRS_AT_ONCE // max(count, 1))
    found = [(np.zeros(0, np.int64),) * 3]
    for start in range(0, count, rows):
        here, there = hashes[start : start + rows], hashes[start:]
        near = np.zeros((len(here), len(there)), bool)
        for word in range(words):
            differing = np.bitwise_count(here[:, None, word] ^ there[:, word])
            near |= differing <= most_bits // words
        first, second = np.nonzero(np.triu(near, 1))
        bits = np.bitwise_count(here[first] ^ there[second]).sum(axis=1, dtype=np.int64)
        keep = bits <= most_bits
        found.append((first[keep] + start, second[keep] + start, bits[keep]))
    first, second, bits = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second, bits


def copied_pairs(
    hashes: np.ndarray, contents: np.ndarray, labels: np.ndarray, splits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those pairs of copies among n photographs that a finding may name, and that connect all.

    A placeholder that is there ten thousand times has fifty million pairs. The nearest copy of a
    photograph is among the first few of its kind: of each hash, by split, those of two different
    contents, for each of the first three labels (one may be its own and one none) too; of each
    content, by split, one for each of the first three labels.

    Args:
        hashes: uint64 (n, words).
        contents: (n,) numbers that are the same for the same bytes.
        labels, splits: (n,) numbers.

    Returns: as `near_pairs`.
    """
    from scipy.sparse import coo_array, eye_array

    count, words = hashes.shape
    if not count:
        return (np.zeros(0, np.int64),) * 3
    distinct, kinds = np.unique(hashes, axis=0, return_inverse=True)
    kinds = kinds.reshape(count)
    one, other, _ = near_pairs(distinct, NEAR_BITS)
    near = coo_array((np.ones(len(one), bool), (one, other)), (len(distinct),) * 2).tocsr()
    near = near + near.T + eye_array(len(distinct), dtype=bool, format="csr")

    cells = _combined(kinds, splits, labels)
    first_labels = np.isin(cells, cells[_lowest(_combined(kinds, splits), labels, 3)])
    of_labels = _lowest(cells, contents, 2)
    of_hashes = [
        _lowest(_combined(kinds, splits), contents, 2),
        of_labels[first_labels[of_labels]],
    ]
    of_contents = _lowest(_combined(contents, splits), labels, 3)
    pairs = [np.zeros((2, 0), np.int64)]
    for keys, named, related in (
        (kinds, np.unique(np.concatenate(of_hashes)), near),
        (contents, of_contents, None),
    ):
        size = int(keys.max()) + 1
        all_rows, some = (
            coo_array((np.ones(len(rows), bool), (rows, keys[rows])), (count, size)).tocsr()
            for rows in (np.arange(count), named)
        )
        found = (all_rows if related is None else all_rows @ related) @ some.T
        pairs.append(np.sort(np.stack(found.nonzero()).astype(np.int64), axis=0))
    first, second = np.concatenate(pairs, axis=1)
    coded = np.unique(first[first < second] * count + second[first < second])
    first, second = coded // count, coded % count
    bits = np.zeros(len(first), np.int64)
    for word in range(words):
        bits += np.bitwise_count(hashes[first, word] ^ hashes[second, word])
    return first, second, bits


def confirmed(groups: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Group numbers (n,) of those photographs of each of the `groups` (n,) whose `hashes`, uint64
    (n, words), differ in at most SAME_SCENE_BITS bits, and of those near these."""
    found, count = np.zeros(len(groups), np.int64), 0
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        distinct, kinds = np.unique(hashes[rows], axis=0, return_inverse=True)
        first, second, _ = near_pairs(distinct, SAME_SCENE_BITS)
        found[rows] = count + connected(first, second, len(distinct))[kinds.reshape(-1)]
        count += len(distinct)
    return found


def numbered(values: Sequence[Any]) -> list[int]:
    number = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return [number[value] for value in values]


def _combined(*columns: np.ndarray) -> np.ndarray:
    """A number for each combination of `columns`, each (n,)."""
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _lowest(groups: np.ndarray, of: np.ndarray, most: int) -> np.ndarray:
    """Of each of the `groups` (n,) the first row of each of the first `most` different `of`."""
    _, rows = np.unique(np.stack((groups, of), axis=1), axis=0, return_index=True)
    rows = rows[np.lexsort((rows, groups[rows]))]
    sorted_groups = groups[rows]
    rank = np.arange(len(rows)) - np.searchsorted(sorted_groups, sorted_groups)
    return rows[rank < most]
