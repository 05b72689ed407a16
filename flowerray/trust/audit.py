"""How right a pile's accepted labels are, by people's judgement of a few of them.

The labels are put in order, by class and then by confidence, and cut into slices of `size`; of each
slice `each` are drawn at random. So every class and every confidence has its share, and every label
the same chance `rate` to be drawn. Nothing else is assumed: neither of the classifier, nor of its
confidences, nor of where the pile comes from; but the people must be right. What holds here holds
for these labels, and for no others.

Why it holds: take any set of labels that was fixed before anybody judged, M of them wrong. The
drawn ones of a slice that are wrong are hypergeometric, so a sum of independent trials, no more
than are drawn and no more than are wrong (Vatutin and Mikhailov 1982, "Limit Theorems for the
Number of Empty Cells in an Equiprobable Scheme for Group Allocation of Particles"). All slices
together: W, a sum of independent trials of unequal chances, with mean M * rate. The slices' chances
may differ as they like: for every w <= M * rate - 1, P(W <= w) is at most what it is were all
chances equal (Hoeffding 1956, "On the Distribution of the Number of Successes in Independent
Trials", theorem 4), that is, a binomial's. In an endless pile this is the bound of Clopper and
Pearson (1934); where all labels are judged it is what was counted.

Labels that people had decided before are left out of the draw, whatever these were chosen by, and
out of every number here: they are known. A later audit takes an earlier one's as decided, which is
sound as well. Whoever looks at a bound and then decides to draw more tests twice: at a
`bound_confidence` of 0.95 for both, each needs 0.975.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerray.errors import FlowerrayError

MOST_OF_A_SLICE = 50  # labels drawn; enough for nearly any rate
NEARLY = 0.98  # of the labels that were asked for are drawn, where slices allow


@dataclass(frozen=True)
class Sample:
    """Labels to judge. `order`: the row numbers (n,) of all that are audited, by class and in each
    the surest first; `starts` (classes + 1,): where in it each class begins; `confidence` (n,) in
    that order; `places` (k,): where in it the drawn are, ascending; `each` of `size` in a slice."""

    order: np.ndarray
    starts: np.ndarray
    confidence: np.ndarray
    places: np.ndarray
    size: int
    each: int

    @property
    def drawn(self) -> np.ndarray:
        """The row numbers (k,) to judge."""
        return self.order[self.places]

    @property
    def rate(self) -> float:
        """The chance of each label to be drawn."""
        return self.each / self.size


@dataclass(frozen=True)
class Precision:
    """Of so many `labels` so many were `judged`, of which so many were `wrong`; of the labels at
    most `wrong_at_most` are, at the confidence that was asked for."""

    labels: int
    judged: int
    wrong: int
    wrong_at_most: int

    @property
    def estimate(self) -> float | None:
        """The share of the judged that are right; None where none is judged."""
        return 1 - self.wrong / self.judged if self.judged else None

    @property
    def bound(self) -> float:
        """The least share of the labels that is right; 0 where there are none."""
        return 1 - self.wrong_at_most / self.labels if self.labels else 0.0


def draw(
    classes: np.ndarray,
    confidence: np.ndarray,
    number: int,
    seed: int,
    decided: np.ndarray | None = None,
) -> Sample:
    """A random sample of accepted labels, the same for the same arguments.

    At most `number`, and little less: all where there are no more.

    Args:
        classes: class indices (n,) of the accepted labels.
        confidence: float (n,).
        number: how many to judge, at least 1.
        decided: bool (n,), those that people have decided before this draw.
    Raises:
        FlowerrayError: there is nothing to judge.
    """
    rows = np.arange(len(classes)) if decided is None else np.flatnonzero(~decided)
    if not len(rows):
        raise FlowerrayError(
            "nothing to audit: no label is accepted that nobody has decided; "
            "accept some first, with a lower --min-precision or --min-confidence"
        )
    order = rows[np.lexsort((-confidence[rows], classes[rows]))]
    starts = np.concatenate([[0], np.cumsum(np.bincount(classes[rows]))])
    each, size = _allocation(len(rows), min(number, len(rows)))
    slices = math.ceil(len(rows) / size)
    keys = np.random.default_rng(seed).random((slices, size))
    chosen = np.argpartition(keys, each - 1, axis=1)[:, :each]
    places = np.sort((chosen + size * np.arange(slices)[:, None]).ravel())
    # The last slice is filled up with labels that aren't there: as though they were right.
    places = places[places < len(rows)]
    return Sample(order, starts, confidence[order], places, size, each)


def _allocation(labels: int, number: int) -> tuple[int, int]:
    """How many to draw of slices of what size: no more than `number` in all, and the fewest of a
    slice with which it is nearly as many."""
    best = (1, math.ceil(labels / number))
    for each in range(2, MOST_OF_A_SLICE + 1):
        if best[0] / best[1] >= NEARLY * number / labels:
            break
        size = math.ceil(each * labels / number)
        if each * math.ceil(labels / size) <= number and each / size > best[0] / best[1]:
            best = each, size
    return best


def overall(sample: Sample, right: np.ndarray, bound_confidence: float = 0.95) -> Precision:
    """The precision of all that was audited.

    Args:
        right: bool (k,), whether each of `sample.drawn` is right; one that nobody could tell counts
            as wrong.
        bound_confidence: how sure `wrong_at_most` is, one-sided.
    """
    return _precision(sample, right, np.diff(sample.starts), bound_confidence)


def by_class(
    sample: Sample, right: np.ndarray, classes: int, bound_confidence: float = 0.95
) -> list[Precision]:
    """The same of each of so many classes, those alone that are labelled so. Each one's bound fails
    one time in twenty by itself; one with few judged has a low bound, with too few 0."""
    known = np.diff(sample.starts)
    numbers = np.arange(len(known))
    return [
        _precision(sample, right, np.where(numbers == index, known, 0), bound_confidence)
        for index in range(classes)
    ]


def thresholds(
    sample: Sample,
    right: np.ndarray,
    classes: Sequence[str],
    min_precision: float,
    bound_confidence: float = 0.95,
    pooled: bool = True,
) -> dict[str, dict[str, Any]]:
    """The least confidence at which the labels of this pile are right often enough: one for all
    classes where `pooled`, else one for each, which takes some hundred judged of each.

    Fixed sequence testing as in ``flowerray.trust.calibration.thresholds``: down from the surest, a
    twentieth more each time, no further than the first step whose bound is too low. The steps
    depend on confidences alone, not on what was drawn or judged. Labels that were not accepted were
    not audited: no threshold may be lower than what they were accepted at, nor is any given.

    Args:
        right: bool (k,), as in `overall`.
    Returns:
        class: threshold and precision_bound (null where no threshold will do), and photographs, how
        many of the audited labels it accepts: all as ``calibration.thresholds`` has them.
    """
    none: dict[str, Any] = {"threshold": None, "precision_bound": None, "photographs": 0}
    known = np.diff(sample.starts)
    found = {name: dict(none) for name in classes}
    groups = [range(len(known))] if pooled else [range(i, i + 1) for i in range(len(known))]
    for group in groups:
        mine = sample.confidence[sample.starts[group.start] : sample.starts[group.stop]]
        mine = np.sort(mine)[::-1]
        for step in _steps(len(mine), sample.rate, min_precision, bound_confidence):
            least = float(mine[step - 1])
            counts = np.zeros_like(known)
            for index in group:
                counts[index] = _sure(sample, index, least)
            there = _precision(sample, right, counts, bound_confidence)
            if there.bound < min_precision:
                break
            for index in group:
                found[classes[index]] = {
                    "threshold": least,
                    "precision_bound": there.bound,
                    "photographs": int(counts[index]),
                }
    return found


def needed(
    labels: int, wanted: float, expected: float, bound_confidence: float = 0.95
) -> int | None:
    """How many of so many labels to judge for a bound of `wanted`, to within a fiftieth, should
    they be as precise as `expected`: then about every second audit comes out so. None where none
    will do, since less is expected than wanted."""
    number = 1
    while True:
        each, size = _allocation(labels, number)
        judged = round(labels * each / size)
        wrong = math.ceil(round(judged * (1 - expected), 6))
        most = _wrong_at_most(wrong, labels, judged, judged, each / size, bound_confidence)
        if 1 - most / labels >= wanted:
            return number
        if number == labels:
            return None
        number = min(max(number + 1, int(number * 1.02)), labels)


def _sure(sample: Sample, index: int, least: float) -> int:
    """How many of a class have at least that confidence."""
    mine = sample.confidence[sample.starts[index] : sample.starts[index + 1]]
    return len(mine) - int(np.searchsorted(mine[::-1], least))


def _precision(
    sample: Sample, right: np.ndarray, counts: np.ndarray, bound_confidence: float
) -> Precision:
    """Of the surest `counts` (classes,) of each class."""
    starts = sample.starts[:-1]
    index = np.searchsorted(sample.starts, sample.places, side="right") - 1
    inside = sample.places < (starts + counts)[index]
    wrong = int((inside & ~right).sum())
    # A slice with an end of two classes is counted twice: more trials only lower the bound.
    touched = (starts + counts - 1) // sample.size - starts // sample.size + 1
    slices = min(int(touched[counts > 0].sum()), math.ceil(len(sample.order) / sample.size))
    labels, judged, trials = int(counts.sum()), int(inside.sum()), slices * sample.each
    most = _wrong_at_most(wrong, labels, judged, trials, sample.rate, bound_confidence)
    return Precision(labels, judged, wrong, most)


def _wrong_at_most(
    wrong: int, labels: int, judged: int, trials: int, rate: float, bound_confidence: float
) -> int:
    """The most of `labels` that may be wrong, where `wrong` of `judged` are: the last number that
    the module's inequality can't refute. `trials` is what was drawn in all slices that these labels
    are in."""
    from scipy.special import bdtr

    def refuted(many: int) -> bool:
        if wrong > many * rate - 1:  # Hoeffding says nothing
            return False
        chances = min(trials, many)
        each = min(many * rate / chances, 1.0)
        return bool(bdtr(wrong, chances, each) <= 1 - bound_confidence)

    possible = range(wrong, labels - judged + wrong + 1)
    return wrong + bisect_left(possible, True, key=refuted) - 1


def _steps(
    labels: int, rate: float, min_precision: float, bound_confidence: float
) -> Iterator[int]:
    """How many of the surest to try: first so many that two of the judged may be wrong, or one, or
    none, as there are plenty left; then a twentieth more each time, to all."""

    def first(wrong: int) -> int:
        def enough(count: int) -> bool:
            judged = int(count * rate)
            most = _wrong_at_most(wrong, count, judged, judged, rate, bound_confidence)
            return judged >= wrong and 1 - most / count >= min_precision

        return 1 + bisect_left(range(1, labels + 1), True, key=enough)

    starts = {wrong: first(wrong) for wrong in (2, 1, 0)}
    fitting = (start for wrong, start in starts.items() if start * (1 + wrong / 2) <= labels)
    count = next(fitting, labels + 1)
    while count < labels:
        yield count
        count = max(count + 1, int(count * 1.05))
    if starts[0] <= labels:
        yield labels
