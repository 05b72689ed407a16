"""Pixels to label shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.errors import FlowerrayError
from flowerray.heads.classifier import Classifier
from flowerray.heads.prepared import PreparedHead
from flowerray.outputs.schemas import LABELS, MOST_PROBABILITIES, NONE, error_columns
from flowerray.sources.photographs import Rejected


class LabelWork:
    """Pixels to a label shard (see ``flowerray.pipeline.actor.Work``)."""

    def __init__(self, trained: Classifier, head: PreparedHead, top_k: int) -> None:
        self.classes, self.top_k, self.none_class = trained.classes, top_k, trained.none_class
        self.feature_shape, self.head = trained.feature_shape, head

    def open(self, base: PreparedBase, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        engine, head = base.open(threads), self.head.open(threads)
        if engine.feature_shape != self.feature_shape:
            raise FlowerrayError(
                f"the classifier's head takes features of shape {self.feature_shape}, "
                f"{base.spec.base} makes {engine.feature_shape}: train again"
            )
        return lambda pixels: head(as_stored(engine(pixels)))

    def table(self, rows: pa.Table, outcomes: list[Any]) -> pa.Table:
        # An outcome is the classes' probabilities and the novelty.
        bad = np.array([isinstance(outcome, Rejected) for outcome in outcomes], bool)
        good = [outcome for outcome in outcomes if not isinstance(outcome, Rejected)]
        found = np.array(good, np.float32).reshape(len(good), len(self.classes) + 1)
        probabilities, novelty = found[:, :-1], found[:, -1]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST_PROBABILITIES]
        most = np.take_along_axis(probabilities, order, axis=1)
        best, top = order[:, : self.top_k], most[:, : self.top_k]
        names = pa.array(self.classes, pa.string())
        pairs = pa.StructArray.from_arrays(
            [names.take(pa.array(best.ravel())), pa.array(top.ravel())],
            fields=list(LABELS.field("top_k").type.value_type),
        )
        numbered = pa.StructArray.from_arrays(
            [pa.array(order.ravel().astype(np.int32)), pa.array(most.ravel().astype(np.float16))],
            fields=list(LABELS.field("probabilities").type.value_type),
        )
        rest = np.maximum(1 - most.sum(axis=1, dtype=np.float64), 0).astype(np.float16)
        label = names.take(pa.array(best[:, 0]))
        none = pc.equal(label, pa.scalar(self.none_class, pa.string()))
        none = pc.fill_null(none, False)
        nothing = pa.nulls(len(good), pa.string())
        # Where the photograph is rejected, there is no row to take.
        row = pa.array(np.cumsum(~bad) - 1, mask=bad)
        columns = [
            rows["image_id"].combine_chunks(),
            rows["uri"].combine_chunks(),
            pc.if_else(none, nothing, label).take(row),
            pa.array(top[:, 0]).take(row),
            _lists(pairs, best.shape).take(row),
            pa.array(novelty).take(row),
            pa.nulls(len(outcomes), pa.bool_()),
            pa.array(["classifier"] * len(good), pa.string()).take(row),
            pc.if_else(none, pa.scalar(NONE), nothing).take(row),
            _lists(numbered, order.shape).take(row),
            pa.array(rest).take(row),
            *error_columns(outcomes),
        ]
        return pa.table(columns, schema=LABELS)


def _lists(values: pa.StructArray, shape: tuple[int, ...]) -> pa.ListArray:
    """`values` as lists of equal length."""
    offsets = np.arange(shape[0] + 1, dtype=np.int32) * shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), values)
