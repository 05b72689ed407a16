"""The third job: any number of photographs into labels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray import (
    calibration,
    catalog,
    classifier,
    cluster,
    gallery,
    inference,
    kinds,
    precision,
    shards,
)
from flowerray import weights as pretrained
from flowerray.bases import BaseSpec
from flowerray.classifier import Classifier
from flowerray.engines import Engine, open_engine
from flowerray.errors import FlowerrayError, UsageError
from flowerray.export import TABLE_WRITERS
from flowerray.photographs import Limits, Rejected
from flowerray.progress import say
from flowerray.review import review_queue
from flowerray.settings import LabelSettings
from flowerray.shards import Output
from flowerray.storage import Folder, whole_file
from flowerray.weights import Weights

GALLERY_PHOTOGRAPHS = 25


@dataclass(frozen=True)
class LabelSummary:
    """What a labelling did. `labels` counts by class, `rejected` by reason; `accepted` counts the
    labels that thresholds accept, None where none were asked for; `novel` the photographs unlike
    all that was trained on; `agreement` says of how many `photographs` the label is the `same` as
    at the classifier's own precision; the rest is of this run alone, see
    ``flowerray.inference.Timing``."""

    out: str
    photographs: int
    labels: dict[str, int]
    accepted: int | None
    novel: int
    rejected: dict[str, int]
    precision: str
    agreement: dict[str, int] | None
    computed: int
    redone: int
    startup_seconds: float
    seconds: float
    actors: int


def label(settings: LabelSettings) -> LabelSummary:
    """Label every photograph behind ``settings.images``: one row each, labelled or rejected.

    Raises:
        FlowerrayError: no photographs or none that could be used, no such classifier, other weights
            than the classifier's, an output that holds something else, a cluster that can't be
            reached.
    """
    kinds.check_photographs(settings.images)
    for written in filter(None, (settings.out, settings.gallery)):
        catalog.check_apart(settings.images, written)
    with shards.written(settings, "labels") as folder:
        return _label_into(folder, settings)


def _label_into(folder: Folder, settings: LabelSettings) -> LabelSummary:
    trained = classifier.load(settings.classifier)
    if settings.format != "parquet":
        shards.check_derived(folder, settings.format)
    recorded = shards.recorded_spec(folder, settings, "labels")
    top_k = min(settings.top_k, len(trained.classes))
    accept = Acceptance.of(trained.classes, settings)
    with cluster.reached(settings.address):
        spec = precision.settled(_asked_of(trained, settings), recorded, settings.device)
        if settings.min_precision is not None and spec.precision != trained.base_spec.precision:
            raise UsageError(
                f"--min-precision rests on evidence at {trained.base_spec.precision}, not at "
                f"{spec.precision}: leave --precision out, or extract and train at {spec.precision}"
            )
        config = {
            "classifier": trained.id,
            "classes": trained.classes,
            "base_spec": dataclasses.asdict(spec),
            "top_k": top_k,
            **dataclasses.asdict(accept),
        }
        weights = pretrained.checked(trained.base_spec, settings.weights, say)
        found = catalog.photographs_to_label(settings.images, settings.columns)
        output = shards.open_output(folder, settings, "labels", config, found)
        to_do = bool(output.to_do())
        with cluster.connection(settings.address) if to_do else nullcontext():
            output, spec, model = _model(trained, output, spec, weights, settings)
            work = LabelWork(trained, spec, top_k, accept)
            if to_do:
                shards.delete_derived(folder, output.run)  # or a kill before the new would leave it
            timing, _ = inference.run(output, work, model, settings, "label")
    if timing.computed:
        took = {"seconds": timing.seconds, "startup_seconds": timing.startup_seconds}
        last = {"photographs": timing.computed, **took, "actors": timing.actors}
        output = shards.with_record(output, timing=last)
    counts = _finished(output, trained.classes, top_k, accept, settings)
    rejected = dict(counts.rejected.most_common())
    shards.check_some_used(output.manifest.rows, rejected, shards.RETRY)
    return LabelSummary(
        str(output.folder),
        output.manifest.rows,
        {name: counts.labels[name] for name in trained.classes},
        counts.accepted if accept.thresholds is not None else None,
        counts.novel,
        rejected,
        spec.precision,
        output.run.get("agreement"),
        **dataclasses.asdict(timing),
    )


def _finished(
    output: Output, classes: list[str], top_k: int, accept: Acceptance, settings: LabelSettings
) -> _Counts:
    """Write what is made of all shards, the review queue, a table and a gallery, and count them:
    each shard is read once."""
    counts = _Counts()
    takers: list[Callable[[pa.Table], None]] = [counts.add]
    columns = ["label", "error", "novelty", "accepted"]
    entries: list[tuple[str, str]] = []
    with ExitStack() as stack:
        queue = None
        if accept.thresholds is not None and not output.folder.exists(shards.REVIEW):
            queue = stack.enter_context(review_queue(classes, top_k))
            takers.append(queue.add)
            columns += ["image_id", "uri", "confidence", "top_k"]
        if settings.gallery:
            takers.append(partial(_add_captions, entries))
            columns += ["uri", "confidence"]
        whole = settings.format != "parquet"
        read = None if whole else [name for name in shards.LABELS.names if name in columns]
        tables = _handed_to(takers, shards.iter_shards(output, read))
        if whole:
            with output.folder.create(f"labels.{settings.format}") as file:
                TABLE_WRITERS[settings.format](tables, file)
        else:
            for _ in tables:
                pass
        if queue is not None:
            queue.write(output.folder)
    if settings.gallery:
        _draw_gallery(output, entries, settings.gallery, settings.limits)
    return counts


def _handed_to(
    takers: Iterable[Callable[[pa.Table], None]], tables: Iterable[pa.Table]
) -> Iterator[pa.Table]:
    for table in tables:
        for take in takers:
            take(table)
        yield table


class _Counts:
    """Photographs of each label, rejected for each reason, accepted, more novel than 1."""

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.accepted = self.novel = 0

    def add(self, table: pa.Table) -> None:
        self.labels.update(shards.counted(table["label"]))
        self.rejected.update(shards.counted(table["error"]))
        self.accepted += pc.sum(table["accepted"]).as_py() or 0
        self.novel += pc.sum(pc.greater(table["novelty"], 1)).as_py() or 0


def _asked_of(trained: Classifier, settings: LabelSettings) -> BaseSpec:
    """The classifier's own base spec, or one of another precision where that is asked for; either
    engine computes it."""
    spec = trained.base_spec
    same = settings.precision in (None, spec.precision)
    if same and spec.precision == "int8":
        return spec
    precision = settings.precision or spec.precision
    return replace(spec, precision=precision, engine=settings.engine, calibration=None)


def _model(
    trained: Classifier,
    output: Output,
    spec: BaseSpec,
    weights: Weights,
    settings: LabelSettings,
) -> tuple[Output, BaseSpec, list[np.ndarray]]:
    """What the actors compute with; at another precision than the classifier's own, with the
    measured agreement of the labels in the output's record."""
    beside, limits, head = Folder.at(settings.classifier), settings.limits, trained.head
    own = _asked_of(trained, replace(settings, precision=None, engine="auto"))
    # Agreement is computed in one task, which may be of another device than the labels.
    device = {"int8": "cpu", "float16": "gpu"}.get(own.precision, settings.device)
    own = precision.settled(own, None, device)
    if spec.precision == own.precision:
        output, spec, model = precision.with_model(output, spec, weights, limits, beside, head)
    else:
        output, spec, model = precision.with_model(
            output, spec, weights, limits, output.folder, head
        )
        if output.to_do() and "agreement" not in output.run:
            _, _, owns = precision.with_model(output, own, weights, limits, beside, head)
            agreed = precision.agreement(output, limits, head, (own, owns), (spec, model))
            output = shards.with_record(output, agreement=agreed)
            say(
                f"label: {spec.precision} gives the label of the classifier's {own.precision} for "
                f"{agreed['same']} of {agreed['photographs']} photographs"
            )
    return output, spec, model


@dataclass(frozen=True)
class Acceptance:
    """Which labels are accepted: those with at least their class' threshold's confidence (see
    ``flowerray.calibration.thresholds``) that are no more novel than 1. None: nobody asked."""

    min_precision: float | None
    min_confidence: float | None
    thresholds: dict[str, dict[str, Any]] | None

    @classmethod
    def of(cls, classes: list[str], settings: LabelSettings) -> Acceptance:
        """As the settings ask, from the classifier's evidence."""
        found = None
        if settings.min_precision is not None:
            table = classifier.evidence(settings.classifier)
            table = table.filter(pc.less_equal(table["novelty"], 1))
            found = calibration.thresholds(
                pc.index_in(table["prediction"], pa.array(classes)).to_numpy(),
                table["confidence"].to_numpy(),
                pc.equal(table["prediction"], table["label"]).to_numpy(),
                classes,
                settings.min_precision,
            )
            for name, one in found.items():
                least = one["threshold"]
                said = f"accepted from confidence {least:.3f}" if least is not None else "to review"
                say(f"label: {name}: {said}, precision {settings.min_precision} asked for")
        elif settings.min_confidence is not None:
            one = {"threshold": settings.min_confidence, "precision_bound": None, "photographs": 0}
            found = {name: dict(one) for name in classes}
        return cls(settings.min_precision, settings.min_confidence, found)

    def __call__(
        self,
        classes: list[str],
        labels: np.ndarray,
        confidence: np.ndarray,
        novelty: np.ndarray,
    ) -> pa.Array:
        """Whether each of n labels, their numbers in `classes` (n,), is accepted with its
        `confidence` and `novelty` float32 (n,): bool (n,), null where nobody asked."""
        if self.thresholds is None:
            return pa.nulls(len(labels), pa.bool_())
        found = (self.thresholds[name]["threshold"] for name in classes)
        least = np.array([np.inf if one is None else one for one in found], np.float32)
        return pa.array((confidence >= least[labels]) & (novelty <= 1))


class LabelWork:
    """Pixels to a label shard (see ``flowerray.inference.Work``)."""

    def __init__(self, trained: Classifier, spec: BaseSpec, top_k: int, accept: Acceptance) -> None:
        self.spec, self.classes, self.top_k, self.accept = spec, trained.classes, top_k, accept
        self.head, self.feature_shape = trained.head, trained.feature_shape

    def open(self, model: list[np.ndarray], threads: int) -> Engine:
        engine = open_engine(self.spec, model, threads, self.head)
        if engine.feature_shape != self.feature_shape:
            raise FlowerrayError(
                f"the classifier's head takes features of shape {self.feature_shape}, "
                f"{self.spec.base} makes {engine.feature_shape}: train again"
            )
        return engine

    def table(self, rows: pa.Table, outcomes: list[Any]) -> pa.Table:
        # An outcome is the classes' probabilities and the novelty.
        bad = np.array([isinstance(outcome, Rejected) for outcome in outcomes], bool)
        good = [outcome for outcome in outcomes if not isinstance(outcome, Rejected)]
        found = np.array(good, np.float32).reshape(len(good), len(self.classes) + 1)
        probabilities, novelty = found[:, :-1], found[:, -1]
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k]
        top = np.take_along_axis(probabilities, best, axis=1)
        names = pa.array(self.classes, pa.string())
        pairs = pa.StructArray.from_arrays(
            [names.take(pa.array(best.ravel())), pa.array(top.ravel())],
            fields=list(shards.LABELS.field("top_k").type.value_type),
        )
        offsets = pa.array(np.arange(len(good) + 1, dtype=np.int32) * best.shape[1])
        accepted = self.accept(self.classes, best[:, 0], top[:, 0], novelty)
        # Where the photograph is rejected, there is no row to take.
        row = pa.array(np.cumsum(~bad) - 1, mask=bad)
        columns = [
            rows["image_id"].combine_chunks(),
            rows["uri"].combine_chunks(),
            names.take(pa.array(best[:, 0])).take(row),
            pa.array(top[:, 0]).take(row),
            pa.ListArray.from_arrays(offsets, pairs).take(row),
            pa.array(novelty).take(row),
            accepted.take(row),
            *shards.error_columns(outcomes),
        ]
        return pa.table(columns, schema=shards.LABELS)


def _add_captions(entries: list[tuple[str, str]], table: pa.Table) -> None:
    """Add the first photographs that have a label, captioned with it and its confidence."""
    missing = GALLERY_PHOTOGRAPHS - len(entries)
    if missing > 0:
        shown = table.filter(pc.is_valid(table["label"])).slice(0, missing)
        entries += [
            (row["uri"], f"{row['label']}\n{row['confidence']:.3f}")
            for row in shown.select(["uri", "label", "confidence"]).to_pylist()
        ]


def _draw_gallery(
    output: Output, entries: list[tuple[str, str]], path: str, limits: Limits
) -> None:
    title = f"{len(entries)} of {output.manifest.rows:,} photographs, label and confidence"
    png = gallery.draw(entries, title, limits)
    with whole_file(path) as stream:
        stream.write(png)
    say(f"gallery: {path}")
