"""Pixels to label shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.bases.engines import Engine
from flowerray.bases.prepared import PreparedBase
from flowerray.errors import FlowerrayError
from flowerray.heads.classifier import Classifier
from flowerray.outputs.schemas import LABELS, error_columns
from flowerray.sources.photographs import Rejected
from flowerray.trust.acceptance import Acceptance


class LabelWork:
    """Pixels to a label shard (see ``flowerray.pipeline.actor.Work``)."""

    def __init__(self, trained: Classifier, top_k: int, accept: Acceptance) -> None:
        self.classes, self.top_k, self.accept = trained.classes, top_k, accept
        self.feature_shape = trained.feature_shape

    def open(self, base: PreparedBase, threads: int) -> Engine:
        engine = base.open(threads)
        if engine.feature_shape != self.feature_shape:
            raise FlowerrayError(
                f"the classifier's head takes features of shape {self.feature_shape}, "
                f"{base.spec.base} makes {engine.feature_shape}: train again"
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
