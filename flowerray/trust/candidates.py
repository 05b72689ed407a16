"""Bases and recipes that were tried on the same photographs, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowerray.trust.paired import CHANCE, Paired

FASTER = 1.2  # times; what is less may be the machine's own mood


@dataclass(frozen=True)
class Extracted:
    """What a base's extraction tells of each of its candidates: `rate` is photographs a second
    here, start-up aside, over the `timed` ones, None where a kill took the timing with it;
    `feature_bytes` are of one photograph; `hours` and `cost`, where a price was given, of as many
    as were asked for."""

    base: str
    precision: str
    rate: float | None
    timed: int | None
    feature_bytes: int
    hours: float | None
    cost: float | None


@dataclass(frozen=True)
class Candidate(Extracted):
    """One base with one recipe.

    `errors` of `photographs`, each judged by a head that was not fitted on it, their share `error`
    and its interval, see ``flowerray.trust.paired.error_interval``; the expected
    `calibration_error` of photographs to come; `accepted`, the share of the photographs whose
    label `--min-precision 0.97` takes. `beside` compares it with the first candidate: None for
    that one itself, and where no photograph was judged by both.
    """

    recipe: str
    photographs: int
    errors: int
    error: float
    error_low: float
    error_high: float
    calibration_error: float
    accepted: float
    beside: Paired | None = None

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"{self.base} {self.recipe}"


@dataclass(frozen=True)
class Failed:
    """What couldn't be tried, a base or a base with a recipe, and why."""

    name: str
    reason: str


def advice(candidates: Sequence[Candidate]) -> str:
    """One line: which of `candidates`, one at least, errs less than the first, and which is faster
    with the same errors within noise.

    By McNemar's test on the photographs that both judged (``flowerray.trust.paired.paired``). To
    err less its p value must be as small as CHANCE over the number of tests (Bonferroni), so that
    of many candidates none is called better by chance; to be the same within noise it must be above
    CHANCE by itself. Between them nothing is claimed.
    """
    first, *others = candidates
    tested = [(one, one.beside) for one in others if one.beside is not None]
    said = []
    better = [(one, by) for one, by in tested if by.difference < 0 and by.p <= CHANCE / len(tested)]
    if better:
        one, by = min(better, key=lambda pair: pair[1].difference)
        said.append(
            f"{one.name}: {-100 * by.difference:.1f} points fewer errors than {first.name} "
            f"(p {_p(by.p)}){_at_speed(one, first)}"
        )
    rates = [(one.rate / first.rate, one, by) for one, by in tested if one.rate and first.rate]
    faster = [(r, one, by) for r, one, by in rates if by.within_noise and r >= FASTER]
    if faster:
        times, one, by = max(faster, key=lambda each: each[0])
        said.append(
            f"{one.name}: the same errors as {first.name} within noise "
            f"({100 * by.low:+.1f} to {100 * by.high:+.1f} points, p {_p(by.p)}) "
            f"at {times:.1f} times the speed"
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
