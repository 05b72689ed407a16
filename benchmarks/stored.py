"""Outputs of given embeddings, as an extraction leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from flowerray.bases.spec import BaseSpec
from flowerray.outputs import shards
from flowerray.outputs.manifest import Manifest, rows_of, write_listing
from flowerray.outputs.record import Output
from flowerray.outputs.schemas import features_schema
from flowerray.stores.folder import Folder
from flowerray.version import __version__


def store(
    directory: Path,
    spec: BaseSpec,
    found: Iterable[pa.RecordBatch],
    embeddings: Callable[[int, int], np.ndarray],
) -> Path:
    """Write an output of the photographs `found` (see ``flowerray.sources.listing.FOUND``);
    `embeddings` gives those of so many rows from one on, float16 (m, width)."""
    folder = Folder.at(str(directory))
    manifest = Manifest((write_listing(found, folder, "manifest", None),))
    run = {
        "kind": "features",
        "flowerray_version": __version__,
        "config": {"base_spec": asdict(spec)},
        "manifest": manifest.as_dict(),
    }
    folder.write("run.json", json.dumps(run).encode())
    output = Output(folder, manifest, run)
    for shard in manifest.shards():
        values = embeddings(shard.first_row, shard.rows)
        width = values.shape[1]
        listed = rows_of(folder, manifest, shard)
        schema = features_schema(width).with_metadata({"feature_shape": json.dumps([width])})
        nothing = pa.nulls(shard.rows, pa.string())
        columns = [
            *(listed[name] for name in ("image_id", "uri", "label", "split")),
            pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width),
            *(nothing, nothing),
        ]
        shards.write_shard(output, shard, pa.table(columns, schema=schema))
    return directory
