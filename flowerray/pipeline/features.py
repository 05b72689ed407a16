"""Pixels to feature shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.outputs.schemas import error_columns, features_schema
from flowerray.sources.photographs import Rejected


class FeatureWork:
    """Pixels to a feature shard (see ``flowerray.pipeline.actor.Work``), with `mirror` to the
    features of each photograph's mirror image too."""

    def __init__(self, mirror: bool) -> None:
        self.mirror = mirror
        self.shape: tuple[int, ...] = ()

    def open(
        self, base: PreparedBase, threads: int
    ) -> Callable[[np.ndarray], Sequence[Sequence[np.ndarray]]]:
        engine = base.open(threads)
        self.shape = engine.feature_shape

        def compute(pixels: np.ndarray) -> Sequence[Sequence[np.ndarray]]:
            copies = [pixels, np.ascontiguousarray(pixels[:, :, ::-1])] if self.mirror else [pixels]
            return list(zip(*map(engine, copies), strict=True))

        return compute

    def table(self, rows: pa.Table, outcomes: list[Any]) -> pa.Table:
        length = int(np.prod(self.shape))
        schema = features_schema(length, self.mirror).with_metadata(
            {"feature_shape": json.dumps(self.shape)}
        )
        columns = [rows[name].combine_chunks() for name in ("image_id", "uri", "label", "split")]
        columns += [_column(outcomes, copy, length) for copy in range(2 if self.mirror else 1)]
        return pa.table([*columns, *error_columns(outcomes)], schema=schema)


def _column(outcomes: list[Any], copy: int, length: int) -> pa.FixedSizeListArray:
    bad = np.array([isinstance(outcome, Rejected) for outcome in outcomes], bool)
    values = np.zeros((len(outcomes), length), np.float16)
    for i in np.flatnonzero(~bad):
        values[i] = as_stored(outcomes[i][copy]).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), length, mask=pa.array(bad))
