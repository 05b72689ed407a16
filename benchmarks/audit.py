"""How often the bound of an audit holds, and how near it is, in simulated piles of five kinds.

    python benchmarks/audit.py [--piles 1000] [--judged 300] [--photographs 10000] [--seed 0]

A photograph's confidence is a logit's, drawn from a normal distribution; a known class' label is
right as often as its confidence says, a stranger's never. The threshold for a precision of 0.97 is
set on evidence of 1,500 photographs without strangers, what it accepts of the pile is audited.
Prints a Markdown table, and one of how far an exact bound lies below the truth whatever the pile.
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import dataclass

import numpy as np
from measure import machine

from flowerray.trust import audit, calibration

EVIDENCE = 1500
PROMISED = 0.97
SPREAD = 2.0  # of the logits
STRANGER = 1.0  # their mean logit: of AUROC 0.76 against the usual 3


@dataclass(frozen=True)
class Kind:
    """A kind of pile: each class' share in it and mean logit, the share of strangers, by how much
    the logits say too much, and each class' share in the evidence."""

    shares: np.ndarray
    logits: np.ndarray
    evidence: np.ndarray
    strangers: float = 0.0
    boast: float = 0.0

    def drawn(self, chance: np.random.Generator, number: int) -> tuple[np.ndarray, ...]:
        """Class indices, confidences and which are right, of the pile."""
        classes, logits = self._known(chance, number, self.shares)
        strange = chance.random(number) < self.strangers
        logits[strange] = chance.normal(STRANGER, SPREAD, strange.sum())
        right = chance.random(number) < _probability(logits - self.boast)
        return classes, _probability(logits).astype(np.float32), right & ~strange

    def promised(self, chance: np.random.Generator) -> float:
        """The threshold that evidence asks for, for all classes."""
        _, logits = self._known(chance, EVIDENCE, self.evidence)
        confidence = _probability(logits).astype(np.float32)
        right = chance.random(EVIDENCE) < confidence
        same = np.zeros(EVIDENCE, int)
        found = calibration.thresholds(same, confidence, right, ["all"], PROMISED)["all"]
        return found["threshold"] if found["threshold"] is not None else 0.99

    def _known(
        self, chance: np.random.Generator, number: int, shares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        classes = chance.choice(len(shares), number, p=shares / shares.sum())
        return classes, chance.normal(self.logits[classes], SPREAD)


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def kinds() -> dict[str, Kind]:
    same, usual = np.ones(5), np.full(5, 3.0)
    many = 1 / np.arange(1, 101) ** 1.5
    hard = np.array([4.0, 4.0, 4.0, 3.0, 1.0])
    return {
        "clean": Kind(same, usual, same),
        "10% strangers": Kind(same, usual, same, strangers=0.1),
        "shifted mix": Kind(np.array([1.0, 1, 1, 2, 8]), hard, same),
        "wrong evidence": Kind(same, usual, same, boast=1.0),
        "tiny classes": Kind(many, np.full(100, 3.0), many),
    }


def audited(kind: Kind, photographs: int, judged: int, seed: int) -> tuple[float, ...]:
    """Accepted labels, truth, bound, bounds of classes that were wrong, and classes."""
    chance = np.random.default_rng(seed)
    least = kind.promised(chance)
    classes, confidence, right = kind.drawn(chance, photographs)
    accepted = confidence >= least
    classes, confidence, right = classes[accepted], confidence[accepted], right[accepted]
    sample = audit.draw(classes, confidence, judged, seed)
    answers = right[sample.drawn]
    found = audit.overall(sample, answers)
    each = audit.by_class(sample, answers, len(kind.shares))
    wrong = np.bincount(classes, ~right, len(kind.shares))
    failed = sum(one.wrong_at_most < many for one, many in zip(each, wrong, strict=True))
    there = sum(one.labels > 0 for one in each)
    return len(right), float(right.mean()), found.bound, failed, there


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--piles", type=int, default=1000)
    options.add_argument("--judged", type=int, default=300)
    options.add_argument("--photographs", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    print(f"{machine()}, {datetime.date.today()}, {chosen.judged} judged, seed {chosen.seed}.\n")
    print(
        f"| kind of {chosen.piles} piles | accepted | right | bound held | mean distance, points "
        "| bounds of classes held |\n|---|---|---|---|---|---|"
    )
    for name, kind in kinds().items():
        seeds = range(chosen.seed * chosen.piles, (chosen.seed + 1) * chosen.piles)
        runs = [audited(kind, chosen.photographs, chosen.judged, seed) for seed in seeds]
        accepted, truth, bound, failed, there = np.array(runs).T
        print(
            f"| {name} | {accepted.mean():,.0f} | {truth.mean():.1%} | {(bound <= truth).sum()} "
            f"| {100 * (truth - bound).mean():.1f} | {1 - failed.sum() / there.sum():.1%} |"
        )
    print(f"\nOf a million labels, {chosen.judged} judged, as many wrong as are expected:\n")
    print("| right | bound | distance, points |\n|---|---|---|")
    for truth in (0.99, 0.97, 0.95, 0.92, 0.9, 0.85, 0.8):
        right = np.arange(chosen.judged) < round(truth * chosen.judged)
        sample = audit.draw(np.zeros(10**6, int), np.zeros(10**6), chosen.judged, 0)
        bound = audit.overall(sample, right[: len(sample.drawn)]).bound
        print(f"| {truth:.0%} | {bound:.1%} | {100 * (truth - bound):.1f} |")


if __name__ == "__main__":
    main()
