"""Features that an extraction stored, by the photographs that a later job asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.outputs.kinds import kind_of
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import Output, read_output
from flowerray.outputs.shards import faults_told
from flowerray.sources.listing import FOUND

COLUMNS = ["uri", "features", "error", "error_detail"]


class StoredFeatures:
    """A finished output of features, read a shard at a time; threads may share it."""

    def __init__(self, output: Output) -> None:
        output.check_whole()
        self.output = output
        self.spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
        self._names = {shard.name for shard in output.manifest.shards()}
        self._read = lru_cache(4)(self._read_shard)

    @property
    def shard_size(self) -> int:
        """The photographs in one shard, of those that were extracted first."""
        return self.output.manifest.listings[0].shard_size

    def photographs(self) -> Iterator[pa.RecordBatch]:
        """The photographs as a job to label would list them: uri and size."""
        for shard in self.output.manifest.shards():
            rows = rows_of(self.output.folder, self.output.manifest, shard)
            found = {name: pa.nulls(len(rows), FOUND.field(name).type) for name in FOUND.names}
            found |= {name: rows[name] for name in ("uri", "size")}
            yield from pa.table(found, FOUND).to_batches()

    def of(self, name: str, uris: pa.ChunkedArray) -> pa.Table:
        """The rows (COLUMNS) of the photographs `uris`, in that order; `name` is the shard that
        they lie in, unless this output grew by other steps than the one that asks.

        Raises:
            FlowerrayError: a shard can't be read, or one of the photographs is not there.
        """
        if name in self._names:
            table = self._read(name)
            if table["uri"].combine_chunks().equals(uris.combine_chunks()):
                return table
        found = [self._places.get(uri) for uri in uris.to_pylist()]
        if None in found:
            lost = uris[found.index(None)].as_py()
            raise FlowerrayError(
                f"{self.output.folder} has no features of {lost} any more: --sync retires its row"
            )
        places: list[tuple[str, int]] = [place for place in found if place is not None]
        return pa.concat_tables(self._read(shard).slice(row, 1) for shard, row in places)

    def __contains__(self, uri: object) -> bool:
        return uri in self._places

    def values(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Of a table that `of` gave the features float16 (rows that have them, *feature_shape),
        and which rows those are, bool (rows,)."""
        shape = json.loads(table.schema.metadata[b"feature_shape"])
        there = pc.is_valid(table["features"])
        values = table["features"].filter(there).combine_chunks().flatten().to_numpy()
        return values.reshape(-1, *shape), there.to_numpy()

    def _read_shard(self, name: str, columns: Sequence[str] = COLUMNS) -> pa.Table:
        with faults_told(self.output, name):
            file = self.output.folder.open(f"shards/{name}", columns)
            return pq.read_table(file, columns=columns)

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        return {
            uri: (name, row)
            for name in sorted(self._names)
            for row, uri in enumerate(self._read_shard(name, ["uri"])["uri"].to_pylist())
        }


def stored_features(source: str) -> StoredFeatures | None:
    """The features in the directory `source`; None where there are none.

    Raises:
        FlowerrayError: they are not finished.
    """
    if kind_of(source) != "features":
        return None
    return StoredFeatures(read_output(source, "features"))
