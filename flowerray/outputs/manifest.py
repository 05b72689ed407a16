"""The manifest that fixes the photographs of an output: their order, labels and split."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.sources.listing import (
    FOUND,
)
from flowerray.stores.folder import Folder, unreadable

# The manifest adds image_id, the row's number, to a photograph as it is found.
MANIFEST = pa.schema([pa.field("image_id", pa.int64(), nullable=False), *FOUND])
ROWS_A_GROUP = 8192  # of a manifest file: what an actor reads to learn of one shard
ROWS_A_PART = 1 << 20


@dataclass(frozen=True)
class Shard:
    """A contiguous run of manifest rows: the unit of work, retry and commit."""

    first_row: int
    rows: int

    @property
    def name(self) -> str:
        """The file name that every try at this shard writes."""
        return f"{self.first_row:012d}.parquet"


@dataclass(frozen=True)
class Listing:
    """Photographs listed at one time: the manifest's first rows, or those that an append added.

    `fingerprint` is the sum of its rows' hashes, image_id left out: the same photographs with the
    same labels, split and sizes have the same one, in whatever order and listings they came.
    `retired` rows are no longer there; their hashes' sum is `retired_fingerprint`.
    """

    first_row: int
    rows: int
    shard_size: int
    fingerprint: str
    retired: int = 0
    retired_fingerprint: str = f"{0:032x}"

    @property
    def end(self) -> int:
        """The row after its last."""
        return self.first_row + self.rows


@dataclass(frozen=True)
class Manifest:
    """All photographs of one output, as ``manifest/FIRST-ROW.parquet`` files in its folder."""

    listings: tuple[Listing, ...]

    @property
    def rows(self) -> int:
        """Photographs in all."""
        return sum(listing.rows - listing.retired for listing in self.listings)

    @property
    def end(self) -> int:
        """The row after the last: the image_id of the next photograph."""
        return self.listings[-1].end if self.listings else 0

    @property
    def fingerprint(self) -> str:
        """That of all photographs, however they came to be listed."""
        listed = sum(int(one.fingerprint, 16) for one in self.listings)
        return fingerprint(listed - sum(int(one.retired_fingerprint, 16) for one in self.listings))

    def shards(self) -> list[Shard]:
        """Every shard, in order."""
        return [
            Shard(start, min(listing.shard_size, listing.end - start))
            for listing in self.listings
            for start in range(listing.first_row, listing.end, listing.shard_size)
        ]

    def listing_of(self, shard: Shard) -> Listing:
        """The listing that `shard` is of."""
        return self.listings[bisect_right(self.listings, shard.first_row, key=_first_row_of) - 1]

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "listings": [
                {k: v for k, v in asdict(one).items() if one.retired or "retired" not in k}
                for one in self.listings
            ]
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Manifest:
        """The inverse of `as_dict`."""
        return cls(tuple(Listing(**listing) for listing in fields["listings"]))


def _first_row_of(listing: Listing) -> int:
    return listing.first_row


def write_listing(
    batches: Iterable[pa.RecordBatch],
    folder: Folder,
    directory: str,
    shard_size: int | None,
    first_row: int = 0,
) -> Listing:
    """Stream `batches` of FOUND into ``directory/FIRST-ROW.parquet`` files of `folder`."""
    total, row = 0, first_row
    for tables in _parts(batches):
        with (
            folder.create(f"{directory}/{row:012d}.parquet") as stream,
            pq.ParquetWriter(stream, MANIFEST, compression="zstd") as writer,
        ):
            for table in tables:
                total += sum_of_hashes(table)
                ids = pa.array(np.arange(row, row + len(table)))
                writer.write_table(table.add_column(0, MANIFEST.field(0), ids))
                row += len(table)
    rows = row - first_row
    return Listing(first_row, rows, shard_size or _shard_size_for(rows), fingerprint(total))


def rows_of(folder: Folder, manifest: Manifest, shard: Shard) -> pa.Table:
    """The manifest rows of `shard`, as MANIFEST; those that were retired are no longer there."""
    listing, tables = manifest.listing_of(shard), [MANIFEST.empty_table()]
    end = shard.first_row + shard.rows
    first_part = shard.first_row - (shard.first_row - listing.first_row) % ROWS_A_PART
    for part in range(first_part, end, ROWS_A_PART):
        with opened_part(folder, f"manifest/{part:012d}.parquet") as file:
            for group in range(file.num_row_groups):
                ids = file.metadata.row_group(group).column(0).statistics
                if ids is None or (ids.max >= shard.first_row and ids.min < end):
                    tables.append(file.read_row_group(group).cast(MANIFEST))
    table = pa.concat_tables(tables)
    ids = table["image_id"]
    inside = pc.and_(pc.greater_equal(ids, shard.first_row), pc.less(ids, end))
    return table.filter(inside)


@contextmanager
def opened_part(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """The file `name` of a manifest or listing.

    Raises:
        FlowerrayError: opening it, or reading in the block, fails.
    """
    try:
        yield pq.ParquetFile(folder.open(name))
    except (OSError, pa.ArrowException) as error:
        mend = "; without it only --overwrite helps"
        raise unreadable(folder.file(name), error, mend) from None


def _shard_size_for(rows: int) -> int:
    """32 to 512: more than 32 shards where there are rows for it, so that actors end together."""
    size = 32
    while size < 512 and rows > 64 * size:
        size *= 2
    return size


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.Table]]:
    """`batches` regrouped: parts of ROWS_A_PART rows, each of tables of ROWS_A_GROUP rows."""
    groups = _regrouped(batches, ROWS_A_GROUP)
    groups_a_part = ROWS_A_PART // ROWS_A_GROUP
    for first in groups:

        def part(first: pa.Table = first) -> Iterator[pa.Table]:
            yield first
            for _, group in zip(range(groups_a_part - 1), groups, strict=False):
                yield group

        yield part()


def _regrouped(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        if count >= rows:
            table = pa.Table.from_batches(waiting, FOUND).combine_chunks()
            whole = count - count % rows
            for start in range(0, whole, rows):
                yield table.slice(start, rows)
            waiting, count = table.slice(whole).to_batches(), count - whole
    if count:
        yield pa.Table.from_batches(waiting, FOUND).combine_chunks()


def fingerprint_of(found: pa.Table) -> str:
    """That of a manifest of the photographs `found`, as FOUND."""
    return fingerprint(sum_of_hashes(found))


def sum_of_hashes(table: pa.Table) -> int:
    """Of the rows' columns that FOUND has."""
    columns = [table[field.name].to_pylist() for field in FOUND]
    return sum(
        int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest(), "little")
        for row in zip(*columns, strict=True)
    )


def fingerprint(total: int) -> str:
    """The name of a sum of rows' hashes."""
    return f"{total % (1 << 128):032x}"
