"""The page of a comparison: how bases and recipes did on the same photographs, and at what speed."""

from __future__ import annotations

from collections.abc import Sequence

from flowerray.reports import charts
from flowerray.reports.page import fill
from flowerray.stores.folder import located
from flowerray.trust.candidates import Candidate


def render(
    images: str,
    classes: Sequence[str],
    candidates: Sequence[Candidate],
    advice: str,
    number: int,
    command: str,
) -> str:
    """The HTML of `candidates` that were tried on `images`, of which at least one worked; hours and
    cost are for `number` photographs, `command` is what made all of it."""
    worked = [one for one in candidates if one.failed is None]
    timed = [one for one in worked if one.rate]
    chart = charts.errors_at_speed(
        "Errors at a speed",
        "Lower is better, and so is further right. The lines are the intervals of the table.",
        {one.name: (one.rate, one.error, one.error_low, one.error_high) for one in timed},
    )
    return fill(
        "compare.html",
        name=located(images).rpartition("/")[2],
        classes=classes,
        worked=worked,
        failed=[one for one in candidates if one.failed is not None],
        advice=advice,
        number=number,
        costs=any(one.cost is not None for one in worked),
        chart=chart if timed else None,
        command=command,
    )
