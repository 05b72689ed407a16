"""Does a pile look like the evidence that its labels' precision was promised from?

Four tests of two samples each, Bonferroni's correction over them, as Rabanser, Günnemann and Lipton
(2019, "Failing Loudly", https://arxiv.org/abs/1810.11953) found to work: what a classifier can tell
apart of the embeddings, the confidences, the novelty, the classes that were given. A large pile
differs from anything measurably, so each test has an effect too, between 0 and 1, and warns only
where it matters as well. No warning is no promise: strangers that look like known classes, or that
are few, are found by an audit alone.

Assumed is that the photographs of each sample are independent: copies count once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST = 1000  # photographs of each that are compared
LEAST = 20  # of each, to compare at all
FOLDS = 5
PERMUTATIONS = 199
CHANCE = 0.05  # that any of the tests warns where there is no shift
# Where less than such a share of the photographs differs, the promise hardly does.
LEAST_EFFECT = 0.05
RIDGE = 10  # of the mean eigenvalue; 3 to 100 do as well on VGG16's features of flowers


@dataclass(frozen=True)
class Difference:
    """What was compared, `name`; the p value of there being none, corrected for all that was
    compared; its `effect`, from 0, the same, to 1, nothing in common."""

    name: str
    p: float
    effect: float

    @property
    def shifted(self) -> bool:
        """Whether it is no chance and matters."""
        return self.p <= CHANCE and self.effect >= LEAST_EFFECT


@dataclass(frozen=True)
class Look:
    """What is compared of n photographs: `embedded` float32 (n, width) of unit length,
    `confidence` and `novelty` float (n,), `classes` their labels' class indices (n,)."""

    embedded: np.ndarray
    confidence: np.ndarray
    novelty: np.ndarray
    classes: np.ndarray

    def some(self, chance: np.random.Generator) -> Look:
        """MOST of them, drawn at random."""
        rows = chance.permutation(len(self.embedded))[:MOST]
        columns = (self.embedded, self.confidence, self.novelty, self.classes)
        return Look(*(column[rows] for column in columns))


def differences(evidence: Look, pile: Look, seed: int) -> list[Difference]:
    """How `pile` differs from `evidence`; nothing where either has fewer than LEAST photographs.

    - photographs: how well a classifier tells embeddings of the one from those of the other (Lopez-
      Paz and Oquab 2017, https://arxiv.org/abs/1610.06545). The effect is 2 AUROC - 1.
    - confidence, novelty: Kolmogorov and Smirnov's test. The effect is their statistic, the most by
      which the shares below any value differ.
    - class mix: chi-square. The effect is the share of photographs that would have to change their
      class. A set with as many of each class differs from most piles, and the precision with it.

    Args:
        seed: of the samples, folds and permutations.
    """
    from scipy.stats import ks_2samp

    if min(len(evidence.embedded), len(pile.embedded)) < LEAST:
        return []
    chance = np.random.default_rng(seed)
    one, other = evidence.some(chance), pile.some(chance)
    found = {"photographs": told_apart(one.embedded, other.embedded, chance)}
    for name in ("confidence", "novelty"):
        test = ks_2samp(getattr(one, name), getattr(other, name))
        found[name] = float(test.pvalue), float(test.statistic)
    found["class mix"] = _mix(one.classes, other.classes)
    return [Difference(name, min(p * len(found), 1.0), e) for name, (p, e) in found.items()]


def told_apart(
    one: np.ndarray, other: np.ndarray, chance: np.random.Generator
) -> tuple[float, float]:
    """The p value and effect of a classifier two-sample test of embeddings (n, width), (m, width).

    The classifier is ridge regression on which sample a row is of, cross-fitted, by its AUROC. The
    p value is exact: what it says is linear in which row is of which sample, so all permutations of
    that cost one product of matrices.
    """
    both = np.concatenate([one, other]).astype(np.float32)
    both -= both.mean(axis=0)
    truth = np.zeros(len(both), np.float32)
    truth[: len(one)] = 1
    labellings = np.stack([truth, *(chance.permutation(truth) for _ in range(PERMUTATIONS))], 1)
    fold = chance.permutation(len(both)) % FOLDS
    products = both @ both.T
    penalty = RIDGE * float(np.trace(products)) / both.shape[1]
    said = np.empty_like(labellings)
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        known = products[np.ix_(train, train)]
        known[np.diag_indices_from(known)] += penalty
        centred = labellings[train] - labellings[train].mean(axis=0)
        said[test] = products[np.ix_(test, train)] @ np.linalg.solve(known, centred)
    ranks = np.empty_like(said)
    np.put_along_axis(
        ranks, said.argsort(axis=0), np.arange(1, len(both) + 1, dtype=np.float32)[:, None], 0
    )
    sums = (ranks * labellings).sum(axis=0, dtype=float)
    auroc = (sums - len(one) * (len(one) + 1) / 2) / (len(one) * len(other))
    p = float((auroc >= auroc[0]).mean())
    return p, max(2 * float(auroc[0]) - 1, 0.0)


def _mix(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The p value and effect of the classes' shares."""
    from scipy.stats import chi2_contingency

    number = max(one.max(), other.max()) + 1
    counts = np.stack([np.bincount(classes, minlength=number) for classes in (one, other)])
    counts = counts[:, counts.any(axis=0)]
    if counts.shape[1] < 2:
        return 1.0, 0.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(chi2_contingency(counts).pvalue), float(np.abs(np.diff(shares, axis=0)).sum() / 2)
