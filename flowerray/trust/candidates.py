"""Bases and recipes that were tried on the same photographs, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowerray.trust.paired import CHANCE, Paired

FASTER = 1.2  # times; what is less may be the machine's own mood


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One base with one recipe, or, with what `failed`, why there is no more to say of it.

    `errors` of `photographs`, each judged by a head that was not fitted on it, and the interval of
    their share, see ``flowerray.trust.paired.error_interval``; the expected `calibration_error` of
    photographs to come; `accepted`, the share of the photographs whose label `--min-precision
    0.97` takes. `rate` is photographs a second through the base here, start-up aside, over the
    `timed` ones; None where the extraction's timing was lost. `feature_bytes` are of one
    photograph; `hours` and `cost` of as many as were asked for. `beside` compares it with the first
    candidate: None for that one itself, and where no photograph was judged by both.
    """

    base: str
    recipe: str | None = None
    failed: str | None = None
    precision: str | None = None
    photographs: int | None = None
    errors: int | None = None
    error: float | None = None
    error_low: float | None = None
    error_high: float | None = None
    calibration_error: float | None = None
    accepted: float | None = None
    rate: float | None = None
    timed: int | None = None
    feature_bytes: int | None = None
    hours: float | None = None
    cost: float | None = None
    beside: Paired | None = None

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"{self.base} {self.recipe}" if self.recipe else self.base


def advice(candidates: Sequence[Candidate]) -> str:
    """One line: which of `candidates` errs less than the first that worked, of which there is one,
    and which is faster with the same errors within noise.

    By McNemar's test on the photographs that both judged (``flowerray.trust.paired.paired``). To
    err less its p value must be as small as CHANCE over the number of tests (Bonferroni), so that
    of many candidates none is called better by chance; to be the same within noise it must be above
    CHANCE by itself. Between them nothing is claimed.
    """
    first, *others = [one for one in candidates if one.failed is None]
    tested = [(one, one.beside) for one in others if one.beside is not None]
    said = []
    better = [(one, by) for one, by in tested if by.difference < 0 and by.p <= CHANCE / len(tested)]
    if better:
        one, by = min(better, key=lambda pair: pair[1].difference)
        said.append(
            f"{one.name}: {-by.difference:.1%} fewer errors than {first.name} "
            f"(p {_p(by.p)}){_at_speed(one, first)}"
        )
    rates = [(one.rate / first.rate, one, by) for one, by in tested if one.rate and first.rate]
    faster = [(r, one, by) for r, one, by in rates if by.within_noise and r >= FASTER]
    if faster:
        times, one, by = max(faster, key=lambda each: each[0])
        said.append(
            f"{one.name}: the same errors as {first.name} within noise ({by.low:+.1%} to "
            f"{by.high:+.1%}, p {_p(by.p)}) at {times:.1f} times the speed"
        )
    if said:
        return "; ".join(said)
    if not tested:
        return f"{first.name}: there is nothing to compare it with"
    return f"{first.name}: none errs less, and none is faster with the same errors"


def _p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _at_speed(one: Candidate, first: Candidate) -> str:
    if not (one.rate and first.rate) or one.base == first.base:
        return ""
    return f" at {one.rate / first.rate:.1f} times the speed"
