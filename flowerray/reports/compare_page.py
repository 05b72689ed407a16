"""The page of a comparison: how bases and recipes did on the same photographs, and how fast."""

from __future__ import annotations

from collections.abc import Sequence

from flowerray.reports import charts
from flowerray.reports.page import fill
from flowerray.stores.folder import located
from flowerray.trust.candidates import Candidate, Failed


def render(
    images: str,
    classes: Sequence[str],
    candidates: Sequence[Candidate],
    failed: Sequence[Failed],
    advice: str,
    number: int,
    command: str,
) -> str:
    """The HTML of the `candidates`, one at least, that were tried on `images`, and of what
    `failed`. Hours and cost are for `number` photographs; `command` is what made all of it."""
    chart = charts.intervals(
        "Share of errors",
        "The lines are the 95% intervals of the table.",
        {one.name: (one.error, one.error_low, one.error_high) for one in candidates},
    )
    return fill(
        "compare.html",
        name=located(images).rpartition("/")[2],
        classes=classes,
        candidates=candidates,
        failed=failed,
        advice=advice,
        number=number,
        costs=any(one.cost is not None for one in candidates),
        chart=chart,
        command=command,
    )
