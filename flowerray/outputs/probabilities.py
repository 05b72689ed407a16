"""The probabilities that label shards keep, as an array."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.outputs import shards
from flowerray.outputs.record import Output


def likeliest(labels: Output) -> np.ndarray:
    """The likeliest probabilities of each photograph, in no order: float32 (n, classes), no more
    of them than are kept; zeros where it couldn't be read."""
    found = [_of(table) for table in shards.iter_shards(labels, ["probabilities"])]
    width = max((one.shape[1] for one in found), default=0)
    padded = [np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in found]
    return np.concatenate(padded) if padded else np.zeros((0, width), np.float32)


def _of(table: pa.Table) -> np.ndarray:
    """Those of a label shard's rows."""
    lists = table["probabilities"].combine_chunks()
    width = pc.max(pc.list_value_length(lists)).as_py() or 0
    found = np.zeros((len(table), width), np.float32)
    there = pc.is_valid(lists).to_numpy(zero_copy_only=False)
    values = pc.struct_field(lists.drop_null().flatten(), "p")
    found[there] = values.to_numpy().reshape(-1, width) if width else 0
    return found
