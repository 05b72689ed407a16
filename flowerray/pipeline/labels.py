"""Pixels to label shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.errors import FlowerrayError
from flowerray.heads.classifier import Classifier
from flowerray.heads.prepared import PreparedHead
from flowerray.outputs.schemas import LABELS, error_columns
from flowerray.sources.photographs import Rejected
from flowerray.trust.acceptance import Acceptance


class LabelWork:
    """Pixels to a label shard (see ``flowerray.pipeline.actor.Work``)."""

    def __init__(
        self, trained: Classifier, head: PreparedHead, top_k: int, accept: Acceptance
    ) -> None:
        self.classes, self.top_k, self.accept = trained.classes, top_k, accept
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
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k]
        top = np.take_along_axis(probabilities, best, axis=1)
        names = pa.array(self.classes, pa.string())
        pairs = pa.StructArray.from_arrays(
            [names.take(pa.array(best.ravel())), pa.array(top.ravel())],
            fields=list(LABELS.field("top_k").type.value_type),
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
            *error_columns(outcomes),
        ]
        return pa.table(columns, schema=LABELS)
