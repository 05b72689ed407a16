"""An honest precision for a pile: people judge a random sample of its accepted labels.

The sample is drawn once and kept beside the labels, audit.parquet; what people say of it gives the
precision and its bound (see ``flowerray.trust.audit``), and is kept as corrections are.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.commands.accept import accept
from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs import corrections, lease
from flowerray.outputs.derived import THRESHOLDS, acceptance_of
from flowerray.outputs.record import Output, read_output, with_record
from flowerray.settings import AcceptSettings, AuditSettings
from flowerray.sources import answers, uris
from flowerray.trust import audit as sampling
from flowerray.trust import drawn
from flowerray.trust.audit import Precision

EXPECTED = (0.98, 0.99, 0.995, 1.0)  # precisions that the sizes are told for


@dataclass(frozen=True)
class Judged:
    """Of so many accepted `labels` so many were `judged`, of which so many were `wrong`: the
    precision's `estimate`, None where none was judged, and its lower `bound`."""

    labels: int
    judged: int
    wrong: int
    estimate: float | None
    bound: float

    @classmethod
    def of(cls, found: Precision) -> Judged:
        return cls(found.labels, found.judged, found.wrong, found.estimate, found.bound)


@dataclass(frozen=True)
class AuditSummary:
    """Of so many accepted `labels` so many were `drawn` to judge, into the file `to_judge`, or
    were judged: `precision` over all, and `classes` each. `holds` says whether the bound reaches
    the `wanted` precision; if not, `thresholds` names a file with those at which it does, where
    there are any. `needed` says how many to judge for it, by the precision expected."""

    out: str
    labels: int
    wanted: float
    bound_confidence: float
    needed: dict[str, int | None]
    drawn: int | None = None
    to_judge: str | None = None
    precision: Judged | None = None
    classes: dict[str, Judged] | None = None
    holds: bool | None = None
    thresholds: str | None = None


def audit(settings: AuditSettings) -> AuditSummary:
    """Draw accepted labels for people to judge, or tell by what they said how many are right.

    Raises:
        FlowerrayError: no labels, none accepted, an answer is missing, or none was drawn yet.
    """
    output = read_output(settings.labels, "labels")
    output.check_whole()
    asked = acceptance_of(output.run)
    if asked["thresholds"] is None:
        raise FlowerrayError(
            f"nothing of {output.folder} is accepted: accept some first, by `flowerray accept "
            f"{output.folder} --min-precision 0.97`"
        )
    wanted = settings.min_precision or asked["min_precision"] or 0.97
    if settings.judged is not None:
        return _told(output, settings, wanted)
    accepted = drawn.accepted_of(output)
    labels = len(accepted)
    if not labels:
        raise FlowerrayError(
            f"nothing to audit: no label of {output.folder} is accepted that nobody has decided; "
            "accept some first, with a lower --min-precision or --min-confidence"
        )
    needed = {
        f"{expected:g}": sampling.needed(labels, wanted, expected, settings.bound_confidence)
        for expected in EXPECTED
        if expected > wanted
    }
    summary = AuditSummary(str(output.folder), labels, wanted, settings.bound_confidence, needed)
    if settings.number is None:
        return summary
    if answers.is_asked(settings.out):
        raise UsageError(f"{settings.out} is there: judge that, or choose another --out")
    with lease.held(output.folder, "labels") as mine:
        to_judge = drawn.draw(
            dataclasses.replace(output, folder=mine), accepted, settings.number, settings.seed
        )
        answers.ask(settings.out, to_judge)
    return AuditSummary(**{**vars(summary), "drawn": len(to_judge), "to_judge": settings.out})


def _told(output: Output, settings: AuditSettings, wanted: float) -> AuditSummary:
    """What people's answers say of the sample that was drawn last; they are kept as corrections."""
    assert settings.judged is not None
    kept, sample, names = drawn.read(output)
    said = answers.read(settings.judged, settings.columns)
    by_key = {
        uris.key(uri): label
        for uri, label in zip(said["uri"].to_pylist(), said["label"].to_pylist(), strict=True)
        if label is not None
    }
    asked = kept.filter(kept["drawn"])
    found = [by_key.get(uris.key(uri)) for uri in asked["uri"].to_pylist()]
    if missing := found.count(None):
        raise FlowerrayError(
            f"{settings.judged} lacks a label for {missing:,} of the {len(found):,} photographs "
            f"drawn, such as {asked['uri'][found.index(None)].as_py()}: fill it in, or none where "
            "it is none of the classes, and run this again"
        )
    right = np.array(found, object) == np.array(asked["label"].to_pylist(), object)
    precision = sampling.overall(sample, right, settings.bound_confidence)
    classes = sampling.by_class(sample, right, len(names), settings.bound_confidence)
    holds, path = precision.bound >= wanted, None
    if not holds:
        offered = sampling.thresholds(sample, right, names, wanted, settings.bound_confidence)
        path = _offered(output, {n: one["threshold"] for n, one in offered.items()})
    # Drawn at random, they are evidence as well when a head is trained on them.
    audited = {uris.key(uri) for uri in asked["uri"].to_pylist()}
    marks = [uris.key(uri) in audited for uri in said["uri"].to_pylist()]
    said = said.set_column(said.column_names.index("audited"), "audited", pa.array(marks))
    with lease.held(output.folder, "labels") as mine:
        output = dataclasses.replace(output, folder=mine)
        corrections.keep(output, said, settings.judged)
        about = dataclasses.asdict(Judged.of(precision))
        of = (kept.schema.metadata or {}).get(b"of", b"").decode()
        with_record(
            output, audited={**about, "bound_confidence": settings.bound_confidence, "of": of}
        )
    accept(AcceptSettings(labels=settings.labels))
    return AuditSummary(
        str(output.folder),
        precision.labels,
        wanted,
        settings.bound_confidence,
        {},
        precision=Judged.of(precision),
        classes=dict(zip(names, map(Judged.of, classes), strict=True)),
        holds=holds,
        thresholds=path,
    )


def _offered(output: Output, least: dict[str, float | None]) -> str | None:
    """Write the thresholds at which the promise holds, no lower than what was accepted at; None
    where there are none."""
    before: dict[str, Any] = acceptance_of(output.run)["thresholds"]
    offered = {
        name: max(one, before[name]["threshold"])
        for name, one in least.items()
        if one is not None and before[name]["threshold"] is not None
    }
    if not offered:
        return None
    with lease.held(output.folder, "labels") as mine:
        mine.write(THRESHOLDS, json.dumps(offered, indent=2).encode())
    return output.folder.file(THRESHOLDS)
