"""Confidence that means what it says: temperature scaling, its error, thresholds for a precision.

All of it rests on evidence: predictions of photographs by a head that was fitted without them and
their copies, one for all copies of a photograph. Assumed is that these photographs are independent
of each other, and that those to come are drawn as they were: by another camera or in another season
nothing here is promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

BINS = 15
FOLDS = 5
LEAST_EVIDENCE = 30  # photographs; a temperature fitted to fewer may be anything
CONFIDENCE_OF_BOUND = 0.95


def temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The number to divide logits by so that the likelihood of `truth` is greatest (Guo et al.
    2017, https://proceedings.mlr.press/v70/guo17a.html).

    Each truth counts as one only to 1 in n + 2 (the targets of Platt 1999, "Probabilistic Outputs
    for Support Vector Machines"): where evidence has no error at all, its likelihood would
    otherwise grow without end as every confidence becomes 1.

    Args:
        probabilities: float (n, classes).
        truth: class indices (n,).
    """
    from scipy.optimize import minimize_scalar

    doubt = 1 / (len(truth) + 2)
    target = np.full(probabilities.shape, doubt / max(probabilities.shape[1] - 1, 1))
    target[np.arange(len(truth)), truth] = 1 - doubt

    def loss(log_temperature: float) -> float:
        scaled = at_temperature(probabilities, float(np.exp(log_temperature)))
        return -float((target * np.log(np.maximum(scaled, 1e-12))).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) with their logits divided by `temperature`."""
    logits = np.log(np.maximum(probabilities, 1e-30)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_fitted(probabilities: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """Each row at the temperature that the other folds ask for: how calibrated new photographs
    come out."""
    fold = np.random.default_rng(seed).permutation(len(truth)) % FOLDS
    scaled = np.empty_like(probabilities)
    for held in range(FOLDS):
        others = fold != held
        if others.any():
            found = temperature(probabilities[others], truth[others])
            scaled[~others] = at_temperature(probabilities[~others], found)
    return scaled


def bins(probabilities: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """What a reliability diagram shows: in BINS equal bins of confidence the photographs, and of
    them the mean confidence and the accuracy (null where there are none)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        inside = index == number
        found.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "photographs": int(inside.sum()),
                "confidence": float(confidence[inside].mean()) if inside.any() else None,
                "accuracy": float(right[inside].mean()) if inside.any() else None,
            }
        )
    return found


def expected_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over `bins`, each
    weighed by its photographs (Naeini et al. 2015)."""
    filled = [b for b in bins(probabilities, truth) if b["photographs"]]
    apart = sum(b["photographs"] * abs(b["confidence"] - b["accuracy"]) for b in filled)
    return apart / max(len(truth), 1)


def thresholds(
    predicted: np.ndarray,
    confidence: np.ndarray,
    right: np.ndarray,
    classes: Sequence[str],
    min_precision: float,
) -> dict[str, dict[str, Any]]:
    """For each class the least confidence at which its accepted labels are right often enough.

    Going down from the surest photographs, in steps, as long as the exact lower bound of the
    precision so far (Clopper and Pearson 1934, at CONFIDENCE_OF_BOUND) reaches `min_precision`, and
    no further than the first step that fails: so testing many thresholds spends no more of the
    error than testing one (fixed sequence testing; Angelopoulos et al. 2021, "Learn then Test").
    Each row is taken as one independent trial, so copies may be in the evidence once only; each
    class' promise fails one time in twenty by itself, so of many classes some will.

    Args:
        predicted: class indices (n,) of the evidence.
        confidence: float (n,).
        right: bool (n,), whether the prediction is the truth.
    Returns:
        class: threshold and precision_bound (null where no threshold will do), photographs of the
        evidence that it accepts.
    """
    found = {}
    for index, name in enumerate(classes):
        mine = np.flatnonzero(predicted == index)
        mine = mine[np.argsort(-confidence[mine], kind="stable")]
        hits = np.cumsum(right[mine])
        # Photographs of equal confidence are accepted together.
        ends = np.flatnonzero(np.diff(confidence[mine], append=-1)) + 1
        best: dict[str, Any] = {"threshold": None, "precision_bound": None, "photographs": 0}
        for step in _steps(len(mine), min_precision):
            count = int(ends[np.searchsorted(ends, step)])
            bound = _lower_bound(int(hits[count - 1]), count)
            if bound < min_precision:
                break
            least = float(confidence[mine[count - 1]])
            best = {"threshold": least, "precision_bound": bound, "photographs": count}
        found[name] = best
    return found


def pooled_threshold(
    confidence: np.ndarray,
    right: np.ndarray,
    min_precision: float,
    bound_confidence: float = CONFIDENCE_OF_BOUND,
) -> dict[str, Any]:
    """The least confidence, one for all classes, at which labels of a pile are right often enough,
    by what people said of some of them.

    Tested as in `thresholds`, pooled: a few hundred judgements can't bear a bound for each class,
    so a class that is mixed up more often than others may fall short of what holds over all. The
    first test is where two, or one, of the surest may be wrong, if twice as many are judged, or
    else none; this looks at their number alone, so it spends nothing of the error.

    The judged must be an even random sample, once each, of the pile's labels that are sure enough
    to be accepted at all; never those that `suggest` chose, which are harder. A sample stratified
    in proportion serves too: its number of errors varies less. Their confidences are those of a
    head that was fitted without them (``flowerray.heads.folds.held_out``); where the final head
    was fitted with them, it is assumed to be no worse and of confidences alike, and what it lifts
    from below the sampled part to be no worse than what was there. Labels that nobody has judged
    are assumed to be many: of a small pile the judged leave fewer sure ones, and so few that their
    own share of right ones varies about the precision that is promised.

    At 0.97 it takes 99 faultless judgements at a `bound_confidence` of 0.95, 76 at 0.9, 53 at 0.8.

    Args:
        confidence: float (n,), of the judged, by their likeliest class that isn't `none`.
        right: bool (n,), whether people gave that class; False where they said `none`.
        min_precision: above 0 and below 1.
        bound_confidence: how often the promise is to hold, above 0 and below 1.
    Returns:
        threshold and precision_bound (null where no threshold will do), photographs of the judged
        that it accepts.
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, hits = confidence[order], np.cumsum(right[order])
    # Photographs of equal confidence are accepted together.
    ends = np.flatnonzero(np.diff(confidence, append=-1)) + 1
    best: dict[str, Any] = {"threshold": None, "precision_bound": None, "photographs": 0}
    count = _first_step(len(confidence), min_precision, bound_confidence)
    while count <= len(confidence):
        count = int(ends[np.searchsorted(ends, count)])
        bound = _lower_bound(int(hits[count - 1]), count, bound_confidence)
        if bound < min_precision:
            break
        least = float(confidence[count - 1])
        best = {"threshold": least, "precision_bound": bound, "photographs": count}
        further = min(max(count + 1, int(count * 1.05)), len(confidence))
        count = further if count < len(confidence) else count + 1
    return best


def _first_step(available: int, min_precision: float, bound_confidence: float) -> int:
    """How many of the surest to test first; more than `available` where no number would do."""
    count = available + 1
    for wrong in (2, 1, 0):
        counts = range(wrong + 1, available + 1)
        enough = (
            n for n in counts if _lower_bound(n - wrong, n, bound_confidence) >= min_precision
        )
        count = next(enough, available + 1)
        if 2 * count <= available:
            return count
    return count


@lru_cache(1 << 16)  # classes and precisions ask for the same ones, at 60 µs each
def _lower_bound(right: int, count: int, confidence: float = CONFIDENCE_OF_BOUND) -> float:
    """Of the precision, where `right` of `count` were: Clopper and Pearson's, one-sided."""
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, right, count - right + 1)) if right else 0.0


def _steps(available: int, min_precision: float) -> list[int]:
    """How many of the surest to try: first so many that two of them may be wrong, where there are
    plenty, or else so many that none may; then a twentieth more each time, to all."""
    counts = range(1, available + 1)
    starts = [
        next((n for n in counts if _lower_bound(n - wrong, n) >= min_precision), available + 1)
        for wrong in (0, 2)
    ]
    count = starts[1] if 1.5 * starts[1] <= available else starts[0]
    steps = []
    while count < available:
        steps.append(count)
        count = max(count + 1, int(count * 1.05))
    return [*steps, available] if count == available or steps else steps
