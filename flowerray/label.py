"""The third job: any number of photographs into labels."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray import catalog, classifier, cluster, gallery, inference, precision, shards
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
from flowerray.storage import Folder
from flowerray.weights import Weights

GALLERY_PHOTOGRAPHS = 25


@dataclass(frozen=True)
class LabelSummary:
    """What a labelling did. `labels` counts by class, `rejected` by reason; `agreement` says
    of how many `photographs` the label is the `same` as at the classifier's own precision; the rest
    is of this run alone, see ``flowerray.inference.Timing``."""

    out: str
    photographs: int
    labels: dict[str, int]
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
    trained = classifier.load(settings.classifier)
    recorded = shards.recorded_spec(settings, "labels")
    spec = precision.settled(_asked_of(trained, settings), recorded, settings.device)
    top_k = min(settings.top_k, len(trained.classes))
    config = {
        "classifier": trained.id,
        "classes": trained.classes,
        "base_spec": dataclasses.asdict(spec),
        "top_k": top_k,
    }
    with cluster.reached(settings.address):
        weights = _weights_of(trained, settings)
        found = catalog.photographs_to_label(settings.images)
        output = shards.open_output(settings, "labels", config, found)
        with cluster.connection(settings.address) if output.to_do() else nullcontext():
            output, work, model = _work(trained, output, spec, weights, settings, top_k)
            timing = inference.run(output, work, model, settings, "label")
    if settings.format != "parquet":
        with output.folder.create(f"labels.{settings.format}") as stream:
            TABLE_WRITERS[settings.format](shards.iter_shards(output), stream)
    if settings.gallery:
        _draw_gallery(output, settings.gallery)
    counts = pc.value_counts(shards.read_table(output, ["label"])["label"]).to_pylist()
    labels = {c["values"]: c["counts"] for c in counts if c["values"] is not None}
    return LabelSummary(
        str(output.folder),
        output.manifest.rows,
        {name: labels.get(name, 0) for name in trained.classes},
        shards.rejects(output),
        spec.precision,
        output.run.get("agreement"),
        **dataclasses.asdict(timing),
    )


def _weights_of(trained: Classifier, settings: LabelSettings) -> Weights:
    """The weights that the classifier was trained with."""
    spec = trained.base_spec
    wanted = "random" if spec.weights == "random" else settings.weights
    weights = pretrained.load(spec.base, wanted, say)
    if weights.sha256 != spec.weights_sha256:
        raise FlowerrayError(
            f"{settings.classifier} was trained with other {spec.base} weights "
            f"({spec.weights_sha256[:12]}...) than {weights.source} gives: name them with --weights"
        )
    return weights


def _asked_of(trained: Classifier, settings: LabelSettings) -> BaseSpec:
    """The classifier's own base spec, or one of another precision where that is asked for; either
    engine computes it."""
    spec = trained.base_spec
    same = settings.precision in (None, spec.precision)
    if spec.engine == "thumbnail" or (same and spec.precision == "int8"):
        return spec
    precision = settings.precision or spec.precision
    return replace(spec, precision=precision, engine=settings.engine, calibration=None)


def _work(
    trained: Classifier,
    output: Output,
    spec: BaseSpec,
    weights: Weights,
    settings: LabelSettings,
    top_k: int,
) -> tuple[Output, LabelWork, list[np.ndarray]]:
    """What the actors do and with which model; at another precision than the classifier's own,
    with the measured agreement of the labels in the output's record."""
    beside = Folder.at(settings.classifier)
    own = _asked_of(trained, replace(settings, precision=None, engine="auto"))
    own = precision.settled(own, None, settings.device)
    if spec.precision == own.precision:
        output, spec, model = precision.with_model(output, spec, weights, beside, trained.head)
    else:
        output, spec, model = precision.with_model(
            output, spec, weights, output.folder, trained.head
        )
        if output.to_do() and "agreement" not in output.run:
            _, _, owns = precision.with_model(output, own, weights, beside, trained.head)
            agreed = precision.agreement(output, trained.head, (own, owns), (spec, model))
            output = shards.with_record(output, agreement=agreed)
            say(
                f"label: {spec.precision} gives the label of the classifier's {own.precision} for "
                f"{agreed['same']} of {agreed['photographs']} photographs"
            )
    return output, LabelWork(trained, spec, top_k), model


class LabelWork:
    """Pixels to a label shard (see ``flowerray.inference.Work``)."""

    def __init__(self, trained: Classifier, spec: BaseSpec, top_k: int) -> None:
        self.spec, self.classes, self.top_k = spec, trained.classes, top_k
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
        top = [None if isinstance(o, Rejected) else self._top(o) for o in outcomes]
        columns = [
            rows["image_id"].combine_chunks(),
            rows["uri"].combine_chunks(),
            pa.array([t[0]["label"] if t else None for t in top], pa.string()),
            pa.array([t[0]["probability"] if t else None for t in top], pa.float32()),
            pa.array(top, shards.LABELS.field("top_k").type),
            *shards.error_columns(outcomes),
        ]
        return pa.table(columns, schema=shards.LABELS)

    def _top(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        best = np.argsort(-probabilities, kind="stable")[: self.top_k]
        return [{"label": self.classes[i], "probability": probabilities[i]} for i in best]


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
    try:
        Path(path).write_bytes(png)
    except OSError as error:
        raise FlowerrayError(f"can't write the gallery {path}: {error.strerror}") from None
    say(f"gallery: {path}")
