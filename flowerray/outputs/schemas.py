"""The columns of feature and label shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from flowerray.outputs.manifest import MANIFEST
from flowerray.sources.photographs import Rejected

ERROR: list[tuple[str, pa.DataType]] = [("error", pa.string()), ("error_detail", pa.string())]
LABELS: pa.Schema = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("top_k", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))),
        ("novelty", pa.float32()),
        ("accepted", pa.bool_()),
        ("source", pa.string()),  # classifier or human, of the label or of why there is none
        ("unlabelled", pa.string()),  # why a photograph that could be read has no label
        # The MOST_PROBABILITIES largest, as numbers of run.json's classes; and the rest's sum.
        ("probabilities", pa.list_(pa.struct([("class", pa.int32()), ("p", pa.float16())]))),
        ("rest", pa.float16()),
        *ERROR,
    ]
)
FOR_PEOPLE = [name for name in LABELS.names if name not in ("probabilities", "rest")]
MOST_PROBABILITIES = 32
NONE = "none of the classes"  # a reason to be unlabelled


def features_schema(feature_length: int, mirrored: bool = False) -> pa.Schema:
    """Feature shards: the manifest's row, `feature_length` float16 values (flattened in C order
    from the shape in the metadata), perhaps as many of the mirror image, and the reason where there
    are none."""
    names = ["features", "features_mirrored"] if mirrored else ["features"]
    features = [pa.field(name, pa.list_(pa.float16(), feature_length)) for name in names]
    columns = [f for f in MANIFEST if f.name != "size"]
    return pa.schema([*columns, *features, *ERROR])


def error_columns(outcomes: Sequence[np.ndarray | Rejected]) -> list[pa.Array]:
    """The `error` and `error_detail` of a shard's rows."""
    bad = [outcome if isinstance(outcome, Rejected) else None for outcome in outcomes]
    return [
        pa.array([b.reason if b else None for b in bad], pa.string()),
        pa.array([b.detail if b else None for b in bad], pa.string()),
    ]
