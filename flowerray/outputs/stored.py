"""Features that an extraction stored, by the photographs that a later job asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.outputs.kinds import kind_of
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import Output, read_output
from flowerray.outputs.shards import faults_told, iter_shards
from flowerray.sources.listing import FOUND

COLUMNS = ["uri", "features", "error", "error_detail"]


def values_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Of (rows of) a feature shard the features float16 (rows that have them, *feature_shape), and
    which rows those are, bool (rows,)."""
    shape = json.loads(table.schema.metadata[b"feature_shape"])
    there = pc.is_valid(table["features"])
    values = table["features"].filter(there).combine_chunks().flatten().to_numpy()
    return values.reshape(-1, *shape), there.to_numpy()


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

    @cached_property
    def width(self) -> int:
        """The values of one photograph's features."""
        first = self.output.manifest.shards()[0].name
        return int(self._read(first).schema.field("features").type.list_size)

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
        places = [self.place(uri) for uri in uris.to_pylist()]
        return pa.concat_tables(self._read(shard).slice(row, 1) for shard, row in places)

    def __contains__(self, uri: object) -> bool:
        return uri in self._places

    def shard(self, name: str) -> pa.Table:
        """The rows (COLUMNS) of a shard."""
        return self._read(name)

    def place(self, uri: str) -> tuple[str, int]:
        """The shard that a photograph lies in, and its row there.

        Raises:
            FlowerrayError: it is not there.
        """
        if (found := self._places.get(uri)) is None:
            raise FlowerrayError(
                f"{self.output.folder} has no features of {uri} any more: --sync retires its row"
            )
        return found

    def values(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Of a table that `of` gave the features float16 (rows that have them, *feature_shape),
        and which rows those are, bool (rows,)."""
        return values_of(table)

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


class Embeddings:
    """The features of `uris` (n,), read a few rows at a time: indexed by row numbers (m,) they are
    float32 (m, width), zeros where there are none."""

    def __init__(self, stored: StoredFeatures, uris: pa.ChunkedArray) -> None:
        self.stored, self.uris = stored, uris

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        places = [self.stored.place(uri) for uri in self.uris.take(pa.array(rows)).to_pylist()]
        order = sorted(range(len(places)), key=lambda i: places[i])
        found = np.zeros((len(rows), self.stored.width), np.float32)
        for name, mine in groupby(order, key=lambda i: places[i][0]):
            here = list(mine)
            table = self.stored.shard(name).take(pa.array([places[i][1] for i in here]))
            values, there = self.stored.values(table)
            found[np.array(here)[there]] = values.reshape(len(values), self.stored.width)
        return found


def mapped(output: Output, directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """The features of a whole output in one file in `directory`, float16 (m, width), of the m
    photographs that have some, and their rows in the output, int64 (m,)."""
    file, rows, seen, width = directory / "features", [np.zeros(0, np.int64)], 0, 0
    with file.open("wb") as stream:
        for table in iter_shards(output, ["features"]):
            values, there = values_of(table)
            stream.write(values.tobytes())
            rows.append(np.flatnonzero(there) + seen)
            seen, width = seen + len(there), math.prod(values.shape[1:])
    found = np.concatenate(rows)
    if not len(found):
        return np.zeros((0, width), np.float16), found
    return np.memmap(file, np.float16, "r", shape=(len(found), width)), found


def stored_features(source: str) -> StoredFeatures | None:
    """The features in the directory `source`; None where there are none.

    Raises:
        FlowerrayError: they are not finished.
    """
    if kind_of(source) != "features":
        return None
    return StoredFeatures(read_output(source, "features"))
