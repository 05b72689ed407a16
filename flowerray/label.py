"""The third job: any number of photographs into labels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray import (
    calibration,
    catalog,
    classifier,
    cluster,
    gallery,
    inference,
    precision,
    shards,
)
from flowerray import weights as pretrained
from flowerray.bases import BaseSpec
from flowerray.classifier import Classifier
from flowerray.engines import Engine, open_engine
from flowerray.errors import FlowerrayError
from flowerray.export import TABLE_WRITERS
from flowerray.photographs import Rejected
from flowerray.progress import say
from flowerray.settings import LabelSettings
from flowerray.shards import Output
from flowerray.storage import Folder, whole_file
from flowerray.weights import Weights

GALLERY_PHOTOGRAPHS = 25
REVIEW_ROWS_A_GROUP = 1 << 20


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
        FlowerrayError: no photographs, no such classifier, other weights than the classifier's,
            an output that holds something else, a cluster that can't be reached.
    """
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
        config = {
            "classifier": trained.id,
            "classes": trained.classes,
            "base_spec": dataclasses.asdict(spec),
            "top_k": top_k,
            **dataclasses.asdict(accept),
        }
        weights = pretrained.checked(trained.base_spec, settings.weights, say)
        found = catalog.photographs_to_label(settings.images)
        output = shards.open_output(folder, settings, "labels", config, found)
        to_do = bool(output.to_do())
        with cluster.connection(settings.address) if to_do else nullcontext():
            output, spec, model = _model(trained, output, spec, weights, settings)
            work = LabelWork(trained, spec, top_k, accept)
            if to_do:
                shards.delete_derived(folder, output.run)  # or a kill before the new would leave it
            timing = inference.run(output, work, model, settings, "label")
    if accept.thresholds is not None and not output.folder.exists(shards.REVIEW):
        _write_review(output)
    if timing.computed:
        took = {"seconds": timing.seconds, "startup_seconds": timing.startup_seconds}
        last = {"photographs": timing.computed, **took, "actors": timing.actors}
        output = shards.with_record(output, timing=last)
    if settings.format != "parquet":
        with output.folder.create(f"labels.{settings.format}") as stream:
            TABLE_WRITERS[settings.format](shards.iter_shards(output), stream)
    if settings.gallery:
        _draw_gallery(output, settings.gallery)
    labels, rejected, accepted, novel = _counted(output)
    return LabelSummary(
        str(output.folder),
        output.manifest.rows,
        {name: labels[name] for name in trained.classes},
        accepted if accept.thresholds is not None else None,
        novel,
        dict(rejected.most_common()),
        spec.precision,
        output.run.get("agreement"),
        **dataclasses.asdict(timing),
    )


def _counted(output: Output) -> tuple[Counter[str], Counter[str], int, int]:
    """Photographs of each label, rejected for each reason, accepted, more novel than 1."""
    labels: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    accepted = novel = 0
    for table in shards.iter_shards(output, ["label", "error", "novelty", "accepted"]):
        labels.update(shards.counted(table["label"]))
        rejected.update(shards.counted(table["error"]))
        accepted += pc.sum(table["accepted"]).as_py() or 0
        novel += pc.sum(pc.greater(table["novelty"], 1)).as_py() or 0
    return labels, rejected, accepted, novel


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
    own = precision.settled(own, None, settings.device)
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

    def __call__(self, label: str, confidence: float, novelty: float) -> bool | None:
        if self.thresholds is None:
            return None
        least = self.thresholds[label]["threshold"]
        return bool(least is not None and confidence >= least and novelty <= 1)


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
        top = [None if isinstance(o, Rejected) else self._top(o[:-1]) for o in outcomes]
        accepted = [
            self.accept(t[0]["label"], t[0]["probability"], o[-1]) if t else None
            for t, o in zip(top, outcomes, strict=True)
        ]
        columns = [
            rows["image_id"].combine_chunks(),
            rows["uri"].combine_chunks(),
            pa.array([t[0]["label"] if t else None for t in top], pa.string()),
            pa.array([t[0]["probability"] if t else None for t in top], pa.float32()),
            pa.array(top, shards.LABELS.field("top_k").type),
            pa.array(
                [o[-1] if t else None for t, o in zip(top, outcomes, strict=True)], pa.float32()
            ),
            pa.array(accepted, pa.bool_()),
            *shards.error_columns(outcomes),
        ]
        return pa.table(columns, schema=shards.LABELS)

    def _top(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        best = np.argsort(-probabilities, kind="stable")[: self.top_k]
        return [{"label": self.classes[i], "probability": probabilities[i]} for i in best]


def _write_review(output: Output) -> None:
    """review.parquet: every label that was not accepted, the least sure first."""
    columns = ["image_id", "uri", "label", "confidence", "top_k", "novelty", "accepted"]
    tables = (
        table.filter(pc.equal(table["accepted"], False)).drop_columns(["accepted"])
        for table in shards.iter_shards(output, columns)
    )
    table = pa.concat_tables(tables)
    # Sorting takes whole columns, and Arrow's plain strings end at 2 GiB.
    table = table.set_column(1, "uri", table["uri"].cast(pa.large_string()))
    table = table.sort_by([("confidence", "ascending"), ("image_id", "ascending")])
    reason = pc.if_else(pc.greater(table["novelty"], 1), "novel", "unsure")
    table = table.append_column("reason", reason)
    schema = table.schema.set(1, pa.field("uri", pa.string())).remove_metadata()
    with (
        output.folder.create(shards.REVIEW) as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        for batch in table.to_batches(REVIEW_ROWS_A_GROUP):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def _draw_gallery(output: Output, path: str) -> None:
    """The first photographs that have a label, captioned with it and its confidence."""
    entries: list[tuple[str, str]] = []
    for table in shards.iter_shards(output, ["uri", "label", "confidence"]):
        entries += [
            (row["uri"], f"{row['label']}\n{row['confidence']:.3f}")
            for row in table.to_pylist()
            if row["label"] is not None
        ]
        if len(entries) >= GALLERY_PHOTOGRAPHS:
            break
    shown = entries[:GALLERY_PHOTOGRAPHS]
    png = gallery.draw(
        shown, f"{len(shown)} of {output.manifest.rows:,} photographs, label and confidence"
    )
    with whole_file(path) as stream:
        stream.write(png)
    say(f"gallery: {path}")
