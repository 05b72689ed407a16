"""The three jobs in one go, on one Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowerray.commands.evaluate import evaluate
from flowerray.commands.extract import ExtractSummary, extract
from flowerray.commands.label import LabelSummary, label
from flowerray.commands.report import report
from flowerray.commands.train import TrainSummary, train
from flowerray.outputs import kinds
from flowerray.pipeline import connection
from flowerray.settings import (
    ExtractSettings,
    LabelSettings,
    ReportSettings,
    RunSettings,
    TrainSettings,
)
from flowerray.sources import answers
from flowerray.sources.labelled import check_apart
from flowerray.sources.listing import photographs_to_label


@dataclass(frozen=True)
class RunSummary:
    """What each job did, where the pile's features lie, if they are kept, the scores of the labels
    where a truth was given, and the page that shows them."""

    extract: ExtractSummary
    train: TrainSummary
    label: LabelSummary
    pile_features: str | None
    evaluation: dict[str, Any] | None
    report: str


def run(settings: RunSettings) -> RunSummary:
    """Extract ``settings.images``, train on it, label ``settings.pile``, all into ``settings.out``.
    The pile's embeddings are kept there, to suggest from and to label again.

    Raises:
        FlowerrayError: as the jobs do.
    """
    features, trained, pile_features, labels = (
        f"{settings.out.rstrip('/')}/{name}"
        for name in ("features", "classifier", "pile_features", "labels")
    )
    whole_maps = settings.recipe == "article"  # they are large: of a pile they are not kept
    kept = None if whole_maps else pile_features
    stores: dict[str, Any] = {
        name: getattr(settings, name) for name in ("endpoint_url", "anonymous", "allow_redirects")
    }
    reached = {"address": settings.address, **stores}
    shared: dict[str, Any] = {
        "actors": settings.actors,
        "weights": settings.weights,
        **reached,
    }
    kinds.check_photographs(settings.images)
    kinds.check_photographs(settings.pile)
    check_apart(settings.images, settings.out, labelled=True)
    check_apart(settings.pile, settings.out)
    # What the last steps take is looked at before the first.
    next(photographs_to_label(settings.pile))
    if settings.truth not in (None, "folders"):
        answers.truths(settings.truth)
    with connection.connection(settings.address):
        extracted = extract(
            ExtractSettings(
                images=settings.images,
                out=features,
                base=settings.base,
                preparation=settings.preparation,
                precision=settings.precision,
                pool="none" if whole_maps else None,
                seed=settings.seed,
                **shared,
            )
        )
        fitted = train(
            TrainSettings(
                features=features,
                out=trained,
                recipe=settings.recipe,
                seed=settings.seed,
                **reached,
            )
        )
        labelled = label(
            LabelSettings(
                images=settings.pile,
                classifier=trained,
                out=labels,
                keep_features=kept,
                gallery=f"{settings.out.rstrip('/')}/labels.png",
                min_precision=settings.min_precision,
                min_confidence=settings.min_confidence,
                **shared,
            )
        )
        page = f"{settings.out.rstrip('/')}/labels.html"
        report(ReportSettings(source=labels, out=page, **stores))
    evaluation = evaluate(labels, settings.truth) if settings.truth else None
    return RunSummary(extracted, fitted, labelled, kept, evaluation, page)
