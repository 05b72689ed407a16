"""Which labels are accepted, and what people said instead: one step after the labels are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.errors import FlowerrayError, meant
from flowerray.heads import classifier
from flowerray.outputs.schemas import LABELS, NONE
from flowerray.progress import MOST_TOLD, say, some_names
from flowerray.settings import AcceptanceSettings
from flowerray.stores.folder import read, unreadable
from flowerray.trust import calibration

HUMAN, CLASSIFIER = "human", "classifier"
# How sure a threshold is that rests on a pile's own decisions. At 0.95 two hundred are too few to
# accept much; measured by benchmarks/teaching.py, at 0.9 the promise held in 29 of 29 runs.
PILE_BOUND = 0.9


@dataclass(frozen=True)
class Acceptance:
    """Which labels are accepted: those with at least their class' threshold's confidence (see
    ``flowerray.trust.calibration.thresholds``) that are no more novel than 1. None: nobody
    asked."""

    min_precision: float | None = None
    min_confidence: float | None = None
    thresholds: dict[str, dict[str, Any]] | None = None

    def of(self, labels: pa.Array, confidence: np.ndarray, novelty: np.ndarray) -> pa.Array:
        """Whether each of n labels (names, null for none) is accepted with its `confidence` and
        `novelty` float32 (n,): bool (n,), null where nobody asked."""
        if self.thresholds is None:
            return pa.nulls(len(labels), pa.bool_())
        names = list(self.thresholds)
        found = (self.thresholds[name]["threshold"] for name in names)
        least = np.array([np.inf if one is None else one for one in found] + [np.inf], np.float32)
        numbers = pc.fill_null(pc.index_in(labels, pa.array(names, pa.string())), len(names))
        return pa.array((confidence >= least[numbers.to_numpy()]) & (novelty <= 1))


def asked_for(
    settings: AcceptanceSettings,
    classes: list[str],
    evidence_in: str,
    decided_here: Callable[[pa.Array], pa.Array] = lambda uris: pa.nulls(len(uris), pa.bool_()),
) -> Acceptance | None:
    """The acceptance that the settings ask for; None where they ask for none.

    Args:
        classes: those that are given as labels.
        evidence_in: the directory with the classifier's evidence.parquet.
        decided_here: which of some uris (m,) are of the pile that is labelled: what people decided
            of a random sample of it is the better evidence, where it is enough.

    Raises:
        FlowerrayError: there is no evidence, or no such file of thresholds.
    """
    if settings.min_precision is not None:
        if found := _of_the_pile(settings.min_precision, classes, evidence_in, decided_here):
            return Acceptance(settings.min_precision, None, found)
        evidence = classifier.evidence(evidence_in)
        found = thresholds_of(evidence, classes, settings.min_precision)
        _tell(found, settings.min_precision)
        return Acceptance(settings.min_precision, None, found)
    if settings.min_confidence is not None:
        least_of = dict.fromkeys(classes, settings.min_confidence)
    elif settings.thresholds is not None:
        least_of = _read_thresholds(settings.thresholds, classes)
    else:
        return None
    found = {
        name: {"threshold": least_of.get(name), "precision_bound": None, "photographs": 0}
        for name in classes
    }
    return Acceptance(None, settings.min_confidence, found)


def thresholds_of(
    evidence: pa.Table, classes: list[str], min_precision: float
) -> dict[str, dict[str, Any]]:
    """What a classifier's `evidence` promises `min_precision` from, of what is not novel in it: see
    ``flowerray.trust.calibration.thresholds``."""
    table = evidence.filter(pc.less_equal(evidence["novelty"], 1))
    return calibration.thresholds(
        pc.fill_null(pc.index_in(table["prediction"], pa.array(classes)), -1).to_numpy(),
        table["confidence"].to_numpy(),
        pc.equal(table["prediction"], table["label"]).to_numpy(),
        classes,
        min_precision,
    )


def _tell(found: dict[str, dict[str, Any]], min_precision: float) -> None:
    """The thresholds `found`: each, or of many classes how far they lie apart."""
    least = {name: one["threshold"] for name, one in found.items()}
    said = {
        name: f"accepted from confidence {one:.3f}" if one is not None else "to review"
        for name, one in least.items()
    }
    if len(said) > MOST_TOLD:
        given = sorted(one for one in least.values() if one is not None)
        each = f" from confidences of {given[0]:.3f} to {given[-1]:.3f}" if given else ""
        to_review = len(least) - len(given)
        said = {f"{len(given):,} classes": f"accepted{each}, {to_review:,} classes to review"}
    for name, what in said.items():
        say(f"accept: {name}: {what}, precision {min_precision} asked for")


def _of_the_pile(
    min_precision: float,
    classes: list[str],
    evidence_in: str,
    decided_here: Callable[[pa.Array], pa.Array],
) -> dict[str, dict[str, Any]] | None:
    """One threshold for all classes, by decisions of the very pile (see
    ``flowerray.trust.calibration.pooled_threshold``), each marked `of_pile`; None where there are
    too few."""
    table = classifier.evidence(evidence_in, of_pile=True)
    if len(table):
        table = table.filter(pc.fill_null(decided_here(table["uri"].combine_chunks()), False))
    if len(table) < calibration.LEAST_EVIDENCE:
        return None
    given = pc.is_in(table["prediction"], value_set=pa.array(classes, pa.string()))
    sure = table.filter(pc.and_(given, pc.less_equal(table["novelty"], 1)))
    found = calibration.pooled_threshold(
        sure["confidence"].to_numpy(),
        pc.equal(sure["prediction"], sure["label"]).to_numpy(),
        min_precision,
        PILE_BOUND,
    )
    least = found["threshold"]
    said = f"accepted from confidence {least:.3f}" if least is not None else "all to review"
    say(
        f"accept: by {len(table):,} audited photographs of this pile, {PILE_BOUND:.0%} sure: "
        f"{said}, precision {min_precision} asked for over all classes"
    )
    return {name: {**found, "of_pile": True} for name in classes}


def _read_thresholds(path: str, classes: list[str]) -> dict[str, float]:
    try:
        data = read(path)
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        found = json.loads(data)
        thresholds = {str(name): float(least) for name, least in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise FlowerrayError(
            f'{path} holds no thresholds: write a confidence a class, as {{"{classes[0]}": 0.9}}'
        ) from None
    if strange := sorted(thresholds.keys() - set(classes)):
        raise FlowerrayError(
            f"{path} names {strange[0]!r}, which is no class of these labels: take of "
            f"{some_names(classes)}{meant(strange[0], classes)}"
        )
    return thresholds


@dataclass(frozen=True)
class Decision:
    """What is made of a classifier's answers: which are `accepted`, what people said of
    photographs (`uris` and `answers`, string (m,)), and the class that stands for none of the
    others, for both."""

    acceptance: Acceptance
    uris: pa.Array
    answers: pa.Array
    none_class: str | None

    def __call__(self, table: pa.Table) -> pa.Table:
        """A label shard as it is decided now, from the classifier's own answers, which stay in
        `top_k`: so it may be decided as often as wanted, and any way round."""
        table = table.combine_chunks()
        count, rejected = len(table), pc.is_valid(table["error"])
        top = table["top_k"].combine_chunks()
        first = pc.list_element(pc.if_else(pc.is_valid(top), top, None), 0) if count else top
        own = pc.struct_field(first, "label") if count else pa.nulls(0, pa.string())
        sure = pc.struct_field(first, "probability") if count else pa.nulls(0, pa.float32())
        said = pc.index_in(table["uri"], self.uris).combine_chunks()
        by_human = pc.and_(pc.is_valid(said), pc.invert(rejected)).combine_chunks()
        answer = self.answers.take(said)
        given = pc.if_else(by_human, answer, own)
        none = pc.fill_null(pc.equal(given, pa.scalar(self.none_class, pa.string())), False)
        label = pc.if_else(none, pa.scalar(None, pa.string()), given)
        novelty = table["novelty"].combine_chunks()
        accepted = self.acceptance.of(
            label, _float32(sure), np.nan_to_num(_float32(novelty), nan=np.inf)
        )
        if self.acceptance.thresholds is not None:
            accepted = pc.if_else(by_human, pc.is_valid(label), accepted)
            accepted = pc.if_else(rejected.combine_chunks(), pa.scalar(None, pa.bool_()), accepted)
        source = pc.if_else(by_human, HUMAN, pa.scalar(CLASSIFIER))
        decided = {
            "label": label,
            "confidence": sure,
            "accepted": accepted,
            "source": pc.if_else(rejected.combine_chunks(), pa.scalar(None, pa.string()), source),
            "unlabelled": pc.if_else(none, pa.scalar(NONE), pa.scalar(None, pa.string())),
        }
        there = {name: table[name] for name in table.column_names}
        whole = {
            field.name: decided.get(field.name, there.get(field.name, pa.nulls(count, field.type)))
            for field in LABELS
        }
        return pa.table(whole, LABELS).replace_schema_metadata(table.schema.metadata)


def _float32(column: pa.Array) -> np.ndarray:
    return pc.cast(column, pa.float32()).to_numpy(zero_copy_only=False)
