"""Feature shards as one array on disk, to train on and to validate with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.heads.data import TrainingData
from flowerray.heads.none import renamed
from flowerray.outputs import shards
from flowerray.outputs.manifest import Shard
from flowerray.outputs.record import Output


@dataclass(frozen=True)
class TrainingSet:
    data: TrainingData
    classes: list[str]
    uris: dict[str, list[str]]  # of each split
    base_spec: BaseSpec


def load_training_set(
    outputs: list[Output],
    corrected: dict[str, str | None],
    none_names: tuple[str, ...],
    directory: Path,
) -> TrainingSet:
    """Stream the shards into one array on disk, so that features may be larger than memory."""
    columns = ["label", "split", "error", "uri"]
    labels = pa.concat_tables(shards.read_table(output, columns) for output in outputs)
    names = [corrected.get(u, n) for u, n in zip(*lists_of(labels, "uri", "label"), strict=True)]
    labels = labels.set_column(0, "label", renamed(pa.array(names, pa.string()), none_names))
    usable = pc.and_(pc.is_null(labels["error"]), pc.is_valid(labels["label"]))
    labels = labels.filter(usable)
    classes = sorted(labels["label"].unique().to_pylist())
    split = labels["split"].to_numpy(zero_copy_only=False)
    indices = pc.index_in(labels["label"], pa.array(classes)).to_numpy()

    spec, shape, filled, read = None, None, 0, 0
    features: dict[str, np.memmap] = {}
    for table in chain.from_iterable(map(shards.iter_shards, outputs)):
        about = json.loads(table.schema.metadata[b"flowerray"])
        found = BaseSpec.from_dict(about["config"]["base_spec"])
        if spec is not None and found != spec:
            raise FlowerrayError(
                f"{outputs[0].folder} mixes features of two makes ({spec.differences(found)} in "
                f"shards/{Shard(table['image_id'][0].as_py(), len(table)).name}): extract again "
                "into an empty directory"
            )
        spec, shape = found, tuple(json.loads(table.schema.metadata[b"feature_shape"]))
        keep = usable.slice(read, len(table))
        read += len(table)
        kept = pc.sum(keep).as_py() or 0
        for copy in {"features", "features_mirrored"} & set(table.column_names):
            column = table[copy].filter(keep).combine_chunks()
            if copy not in features:
                whole = (len(labels), *shape)
                features[copy] = np.memmap(directory / copy, np.float16, "w+", shape=whole)
            features[copy][filled : filled + kept] = column.flatten().to_numpy().reshape(-1, *shape)
        filled += kept
    assert spec is not None
    parts = {part: split == part for part in ("train", "valid")}
    # Rows of a split are taken as a slice where they lie together, as they do in the article's
    # layout, and else copied to a second file.
    mirrored = None
    if "features_mirrored" in features:
        mirrored = _rows(features["features_mirrored"], parts["train"], directory / "mirrored")
    data = TrainingData(
        _rows(features["features"], parts["train"], directory / "train"),
        indices[parts["train"]],
        _rows(features["features"], parts["valid"], directory / "valid"),
        indices[parts["valid"]],
        len(classes),
        mirrored,
        embedded=spec.pool == "embedding",
    )
    uris = {part: labels["uri"].filter(pa.array(rows)).to_pylist() for part, rows in parts.items()}
    return TrainingSet(data, classes, uris, spec)


def lists_of(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def _rows(features: np.ndarray, chosen: np.ndarray, file: Path) -> np.ndarray:
    rows = np.flatnonzero(chosen)
    if rows[-1] - rows[0] + 1 == len(rows):
        return features[rows[0] : rows[-1] + 1]
    copied = np.memmap(file, features.dtype, "w+", shape=(len(rows), *features.shape[1:]))
    for start in range(0, len(rows), 1024):
        copied[start : start + 1024] = features[rows[start : start + 1024]]
    return copied
