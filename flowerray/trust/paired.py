"""How often a classifier errs, and which of two errs less on the same photographs.

Assumed is that the photographs are independent, each of them counted once, and drawn as those to
come. In cross-validation the heads are fitted on overlapping photographs, which no interval here
knows of (Bengio and Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold
Cross-Validation"): what is told holds for the heads that were judged, and another training varies
by more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CHANCE = 0.05  # up to such a p value it is not noise
CONFIDENCE = 0.95  # of intervals


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same `photographs`: those that only the first gets wrong, and only
    the second; `p`, two-sided, of their being as many but for chance; the second's share of errors
    less the first's, `difference`, with the interval from `low` to `high`."""

    photographs: int
    first_alone: int
    second_alone: int
    p: float
    difference: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the difference may be chance; `low` and `high` say how large it may be then."""
        return self.p > CHANCE


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """McNemar's test (1947, "Note on the sampling error of the difference between correlated
    proportions or percentages"), exact: of the photographs that one of the two gets wrong, as many
    as a fair coin gives would be either's.

    The interval is Agresti and Min's (2005, "Simple improved confidence intervals for comparing
    matched proportions"): Wald's, with half a photograph more of each kind.

    Args:
        first: bool (n,), which photographs the first classifier gets right.
        second: bool (n,), the same of the second, in the same order.
    """
    from scipy.stats import binomtest, norm

    first_alone, second_alone = int((second & ~first).sum()), int((first & ~second).sum())
    apart = first_alone + second_alone
    p = float(binomtest(first_alone, apart).pvalue) if apart else 1.0
    number = len(first) + 2
    middle = (second_alone - first_alone) / number
    error = math.sqrt((apart + 1) / number - middle**2) / math.sqrt(number)
    reach = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    difference = (second_alone - first_alone) / max(len(first), 1)
    low, high = max(middle - reach, -1.0), min(middle + reach, 1.0)
    return Paired(len(first), first_alone, second_alone, p, difference, low, high)


def error_interval(errors: int, photographs: int) -> tuple[float, float]:
    """Between which shares of errors the true one lies, CONFIDENCE sure, where `errors` of so many
    `photographs` (one at least) were made: Wilson's score interval (1927, "Probable Inference, the
    Law of Succession, and Statistical Inference"), which keeps its confidence on average over the
    shares (Brown, Cai and DasGupta 2001), where Clopper and Pearson's, by which labels are
    accepted, keeps it for each and is wider."""
    from scipy.stats import binomtest

    found = binomtest(errors, photographs).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
