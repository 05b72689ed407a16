"""What a new listing adds to a manifest, and what is to go from it: joined on disk by DuckDB, in
memory that the number of photographs doesn't change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray import stores
from flowerray.errors import UsageError
from flowerray.outputs.manifest import (
    MANIFEST,
    ROWS_A_PART,
    Listing,
    Manifest,
    fingerprint,
    opened_part,
    sum_of_hashes,
)
from flowerray.sources.listing import FOUND
from flowerray.stores.folder import Folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "512MB"  # of DuckDB; what doesn't fit lies on the local disk
THREADS = 2
ROWS_AT_ONCE = 8192
LOOKS_IN_FLIGHT = 32


@contextmanager
def compared(
    folder: Folder, manifest: Manifest, listed: str, by_split: bool
) -> Iterator[Difference]:
    """The rows of `manifest` beside those listed in the directory `listed` of `folder`. Rows are
    the same by uri and label, and, where the listing names it (`by_split`), split."""
    import duckdb

    same_split = "AND k.split IS NOT DISTINCT FROM l.split" if by_split else ""
    with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
        connection = duckdb.connect(
            str(Path(directory, "join.duckdb")),
            config={
                "memory_limit": MEMORY,
                "temp_directory": directory,
                "threads": THREADS,
                "preserve_insertion_order": False,
            },
        )
        try:
            parts = sorted(folder.names(listed))
            connection.register("k", _rows(folder, _parts_of(manifest)))
            connection.register("l", _rows(folder, [f"{listed}/{name}" for name in parts]))
            connection.execute(
                "CREATE TABLE lone AS SELECT k.image_id AS known, l.image_id AS listed, "
                "coalesce(k.uri, l.uri) AS uri, coalesce(k.label, l.label) AS label, "
                "coalesce(k.split, l.split) AS split, coalesce(k.size, l.size) AS size "
                "FROM k FULL JOIN l ON k.uri = l.uri AND k.label IS NOT DISTINCT FROM l.label "
                f"{same_split} WHERE k.image_id IS NULL OR l.image_id IS NULL"
            )
            connection.execute(
                "CREATE TABLE relabelled AS SELECT DISTINCT k.known, k.uri "
                "FROM lone k JOIN lone l ON k.uri = l.uri "
                "WHERE k.known IS NOT NULL AND l.listed IS NOT NULL"
            )
            yield Difference(connection)
        finally:
            connection.close()


class Difference:
    """What a manifest or a listing has alone, on disk."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection

    def new(self) -> Iterator[pa.RecordBatch]:
        """What the listing has alone, as FOUND, in its order."""
        for batch in self._read(
            "SELECT uri, label, split, size FROM lone WHERE listed IS NOT NULL ORDER BY listed"
        ):
            yield batch.cast(FOUND)

    def retired(self) -> tuple[np.ndarray, str]:
        """The image_ids, sorted, of rows whose file is gone or is listed with another label or
        split, and the uri of one. A file that can't be looked for is not taken for gone."""
        relabelled = self._read("SELECT known, uri FROM relabelled ORDER BY known")
        unlisted = self._read(
            "SELECT known, uri FROM lone WHERE known IS NOT NULL "
            "AND known NOT IN (SELECT known FROM relabelled) ORDER BY known"
        )
        ids, example = [np.zeros(0, np.int64)], ""
        with ThreadPoolExecutor(LOOKS_IN_FLIGHT) as pool:
            for batch in relabelled:
                ids.append(batch["known"].to_numpy())
                example = example or batch["uri"][0].as_py()
            for batch in unlisted:
                gone = np.array(list(pool.map(_is_gone, batch["uri"].to_pylist())), bool)
                ids.append(batch["known"].to_numpy()[gone])
                if gone.any():
                    example = example or batch["uri"][int(gone.argmax())].as_py()
        return np.sort(np.concatenate(ids)), example

    def _read(self, query: str) -> Any:
        # A cursor of its own: another query would end the reading of this one.
        return self._connection.cursor().sql(query).to_arrow_reader(ROWS_AT_ONCE)


def _is_gone(uri: str) -> bool:
    try:
        return not stores.source_at(uri).exists(uri)
    except (OSError, ValueError, UsageError):
        return False


def drop_rows(folder: Folder, manifest: Manifest, ids: np.ndarray) -> None:
    """Rewrite the manifest's files without the rows of these sorted `ids`. Each says in its
    metadata what it lacks: how many rows, and the sum of their hashes."""
    for name in _parts_of(manifest):
        first = int(name[-20:-8])
        start, end = np.searchsorted(ids, [first, first + ROWS_A_PART])
        if start == end:
            continue
        dropped = pa.array(ids[start:end])
        with (
            opened_part(folder, name) as file,
            folder.create(name) as stream,
            pq.ParquetWriter(stream, MANIFEST, compression="zstd") as writer,
        ):
            rows, total = _lacks(file)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                leave = pc.is_in(table["image_id"], value_set=dropped)
                gone = table.filter(leave)
                rows += len(gone)
                total += sum_of_hashes(gone)
                if len(gone) < len(table):
                    writer.write_table(table.filter(pc.invert(leave)).cast(MANIFEST))
            about = {"retired": rows, "retired_fingerprint": fingerprint(total)}
            writer.add_key_value_metadata({"flowerray": json.dumps(about)})


def recounted(folder: Folder, manifest: Manifest) -> Manifest:
    """`manifest` with what its files say that they lack."""
    listings = []
    for listing in manifest.listings:
        found = [
            _lacks(pq.ParquetFile(folder.open(name))) for name in _parts_of(Manifest((listing,)))
        ]
        listings.append(
            replace(
                listing,
                retired=sum(rows for rows, _ in found),
                retired_fingerprint=fingerprint(sum(total for _, total in found)),
            )
        )
    return Manifest(tuple(listings))


def _lacks(file: pq.ParquetFile) -> tuple[int, int]:
    about = json.loads((file.metadata.metadata or {}).get(b"flowerray", b"{}"))
    return about.get("retired", 0), int(about.get("retired_fingerprint", "0"), 16)


def _parts_of(manifest: Manifest) -> list[str]:
    def parts(listing: Listing) -> range:
        return range(listing.first_row, listing.end, ROWS_A_PART)

    return [f"manifest/{row:012d}.parquet" for one in manifest.listings for row in parts(one)]


def _rows(folder: Folder, names: list[str]) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        for name in names:
            with opened_part(folder, name) as file:
                yield from (
                    pa.record_batch(batch.columns, MANIFEST)
                    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE)
                )

    return pa.RecordBatchReader.from_batches(MANIFEST, batches())
