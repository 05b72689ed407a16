"""Bases and recipes side by side on a labelled set: an extraction a base, a training a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.own import base as own
from flowerray.bases.spec import base_named
from flowerray.commands.extract import extract
from flowerray.commands.report import check_replaceable
from flowerray.commands.train import train
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier
from flowerray.heads.classifier import Classifier
from flowerray.outputs import kinds
from flowerray.outputs.record import read_output
from flowerray.outputs.stored import StoredFeatures
from flowerray.pipeline import connection
from flowerray.progress import say
from flowerray.reports import compare_page
from flowerray.settings import (
    ColumnSettings,
    CompareSettings,
    ExtractSettings,
    PhotographSettings,
    PlanSettings,
    TrainSettings,
    command_line,
)
from flowerray.sources.labelled import check_apart
from flowerray.stores.folder import located, whole_file
from flowerray.trust.acceptance import Acceptance, thresholds_of
from flowerray.trust.candidates import Candidate, Extracted, Failed, advice
from flowerray.trust.paired import error_interval, paired

ACCEPTED_AT = 0.97  # precision
FEATURE = np.dtype(np.float16)  # as shards keep them


@dataclass(frozen=True)
class CompareSummary:
    """The candidates in the order that they were asked for, what failed instead, what to make of
    them in a line, and the page; hours and cost are for `number` photographs."""

    out: str
    page: str
    classes: list[str]
    number: int
    price: float | None
    candidates: list[Candidate]
    failed: list[Failed]
    advice: str


@dataclass(frozen=True)
class _Tried:
    """A candidate, with its classes and which photographs it got right, by uri."""

    candidate: Candidate
    classes: list[str]
    right: dict[str, bool]


def compare(settings: CompareSettings) -> CompareSummary:
    """Try each base with each recipe on ``settings.images``, by the evidence that `train` makes of
    photographs which a head was not fitted on. A base or recipe that fails costs its row.

    What is in ``settings.out`` already is not made again: BASE/features, BASE/RECIPE/classifier.

    Raises:
        UsageError: a base that there is none of, two of one name, or an output among the
            photographs.
        FlowerrayError: nothing could be tried, or the cluster can't be reached.
    """
    root = located(settings.out)
    page = f"{root}/compare.html"
    names = _names(settings.each_base)
    kinds.check_photographs(settings.images)
    check_apart(settings.images, settings.out, labelled=True)
    check_replaceable(page)
    tried: list[_Tried] = []
    failed: list[Failed] = []
    with connection.connection(settings.address):
        for base, name in names.items():
            for one in _tries(settings, base, name, f"{root}/{name}"):
                if isinstance(one, _Tried):
                    tried.append(one)
                else:
                    say(f"compare: {one.name}: {one.reason}")
                    failed.append(one)
    if not tried:
        # What is the same for all of them is no fault of theirs: no photographs, say.
        reasons = list(dict.fromkeys(one.reason for one in failed))
        each = "; ".join(f"{one.name}: {one.reason}" for one in failed)
        raise FlowerrayError(reasons[0] if len(reasons) == 1 else f"nothing worked: {each}")
    candidates = [_beside(one, tried[0]) for one in tried]
    done = CompareSummary(
        out=root,
        page=page,
        classes=tried[0].classes,
        number=settings.number,
        price=settings.price,
        candidates=candidates,
        failed=failed,
        advice=advice(candidates),
    )
    html = compare_page.render(
        settings.images,
        done.classes,
        candidates,
        failed,
        done.advice,
        settings.number,
        command_line("compare", settings),
    )
    with whole_file(page) as stream:
        stream.write(html.encode())
    return done


def _names(bases: list[str]) -> dict[str, str]:
    """What each base is called; one in a file of the user's own as the file or its directory is.

    Raises:
        UsageError: there is none of it, or two are called alike.
    """
    names: dict[str, str] = {}
    for base in bases:
        if own.is_own(base):
            name = own.name_of(base)
        else:
            base_named(base)
            name = base
        if name in names.values():
            raise UsageError(f"two bases are called {name}: rename the directory of one")
        names[base] = name
    return names


def _tries(
    settings: CompareSettings, base: str, name: str, directory: str
) -> Iterator[_Tried | Failed]:
    """Extract by `base`, which is called `name`, and train each recipe on that."""
    shared = {
        field.name
        for part in (PlanSettings, PhotographSettings, ColumnSettings)
        for field in dataclasses.fields(part)
    }
    stores = ("address", "endpoint_url", "anonymous", "allow_redirects")
    features = f"{directory}/features"
    say(f"compare: {name}")
    try:
        extract(
            ExtractSettings(
                images=settings.images,
                out=features,
                base=base,
                precision=settings.precision,
                weights="imagenet" if own.is_own(base) else settings.weights,
                seed=settings.seed,
                **{name: getattr(settings, name) for name in shared},
            )
        )
        extracted = _extracted(features, settings)
    except FlowerrayError as error:
        yield Failed(name, str(error))
        return
    for recipe in settings.each_recipe:
        out = f"{directory}/{recipe}/classifier"
        try:
            train(
                TrainSettings(
                    features=features,
                    out=out,
                    recipe=recipe,
                    seed=settings.seed,
                    **{name: getattr(settings, name) for name in stores},
                )
            )
            yield _judged(out, recipe, extracted)
        except FlowerrayError as error:
            yield Failed(f"{name} {recipe}", str(error))


def _extracted(directory: str, settings: CompareSettings) -> Extracted:
    stored = StoredFeatures(read_output(directory, "features"))
    timing: dict[str, Any] = stored.output.run.get("timing", {})
    rate = timing["photographs"] / timing["seconds"] if timing.get("seconds") else None
    hours = settings.number / rate / 3600 if rate else None
    return Extracted(
        base=stored.spec.base,
        precision=stored.spec.precision,
        rate=rate,
        timed=timing.get("photographs"),
        feature_bytes=stored.width * FEATURE.itemsize,
        hours=hours,
        cost=None if settings.price is None or hours is None else hours * settings.price,
    )


def _judged(directory: str, recipe: str, extracted: Extracted) -> _Tried:
    """What the evidence of the classifier in `directory` says."""
    trained, evidence = classifier.load(directory), classifier.evidence(directory)
    right = pc.equal(evidence["prediction"], evidence["label"]).to_numpy()
    errors, number = int((~right).sum()), len(right)
    if not number:
        raise FlowerrayError(
            f"{directory} has no evidence: every photograph is a copy of others; add different ones"
        )
    low, high = error_interval(errors, number)
    candidate = Candidate(
        **vars(extracted),
        recipe=recipe,
        photographs=number,
        errors=errors,
        error=errors / number,
        error_low=low,
        error_high=high,
        calibration_error=trained.about["calibration"]["ece_after"],
        accepted=_share_accepted(trained, evidence),
    )
    known = dict(zip(evidence["uri"].to_pylist(), right.tolist(), strict=True))
    return _Tried(candidate, trained.classes, known)


def _share_accepted(trained: Classifier, evidence: pa.Table) -> float:
    """Of the photographs of the evidence, those that `label --min-precision` would accept."""
    classes = [name for name in trained.classes if name != trained.none_class]
    found = Acceptance(ACCEPTED_AT, None, thresholds_of(evidence, classes, ACCEPTED_AT))
    numbers = (evidence[name].to_numpy() for name in ("confidence", "novelty"))
    accepted = found.of(evidence["prediction"].combine_chunks(), *numbers)
    return float(pc.mean(accepted.cast(pa.float64())).as_py())


def _beside(one: _Tried, first: _Tried) -> Candidate:
    """The candidate, compared with the first on the photographs that both judged."""
    both = [uri for uri in first.right if uri in one.right]
    if one is first or not both:
        return one.candidate
    mine, firsts = (np.array([tried.right[uri] for uri in both]) for tried in (one, first))
    return replace(one.candidate, beside=paired(firsts, mine))
