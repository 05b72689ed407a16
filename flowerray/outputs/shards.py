"""Shards: committed whole, read one by one, some read ahead."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError
from flowerray.outputs.manifest import Shard
from flowerray.outputs.record import Output, our_names

READS_IN_FLIGHT = 16  # of shards, by one that goes through all of them,
BYTES_READ_AHEAD = 128 << 20  # if they are not larger in all than this


def write_shard(output: Output, shard: Shard, table: pa.Table) -> None:
    """Commit `table` as `shard`."""
    about = {**(table.schema.metadata or {}), **output.metadata(shard)}
    with output.folder.create(f"shards/{shard.name}") as stream:
        pq.write_table(
            table.replace_schema_metadata(about),
            stream,
            compression="zstd",
            write_page_checksum=True,
        )


def read_shard(output: Output, shard: Shard) -> pa.Table | None:
    """The committed `shard`; None where it is not there yet.

    Raises:
        FlowerrayError: it can't be read.
    """
    with faults_told(output, shard.name):
        try:
            file = output.folder.open(f"shards/{shard.name}")
        except FileNotFoundError:
            return None
        return pq.read_table(file)


def read_table(output: Output, columns: Sequence[str]) -> pa.Table:
    """`columns` of all committed shards, in order of image_id.

    Raises:
        FlowerrayError: there is none yet.
    """
    tables = list(iter_shards(output, columns))
    if not tables:
        raise FlowerrayError(f"{output.folder} has no shard yet: run its job again to finish it")
    return pa.concat_tables(tables)


def iter_shards(output: Output, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The committed shards one by one, in order, some being read ahead: as many as fit in
    BYTES_READ_AHEAD, by the largest so far.

    Raises:
        FlowerrayError: one can't be read.
    """
    return _tables(output, shard_names(output), columns)


def _tables(
    output: Output, names: Iterable[str], columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        ahead: deque[Future[pa.Table]] = deque()
        largest, most = 1, 0
        for name in names:
            ahead.append(pool.submit(_read, output, name, columns))
            while len(ahead) > most:
                table = ahead.popleft().result()
                largest = max(largest, table.nbytes)
                most = min(READS_IN_FLIGHT, BYTES_READ_AHEAD // largest)
                yield table
        while ahead:
            yield ahead.popleft().result()


def _read(output: Output, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    with faults_told(output, name):
        return pq.read_table(output.folder.open(f"shards/{name}", columns), columns=columns)


@contextmanager
def faults_told(output: Output, name: str) -> Iterator[None]:
    """Turn what reading the shard `name` raises into one clear line."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise FlowerrayError(
            f"{output.folder.file(f'shards/{name}')} can't be read "
            f"({str(error).partition(chr(10))[0]}): if `flowerray verify {output.folder}` calls it "
            "damaged, remove it and run its job again"
        ) from None


def rejects(output: Output, but: Iterable[Shard] = ()) -> Counter[str]:
    """How many photographs were rejected, by reason, in all shards `but` some."""
    counts: Counter[str] = Counter()
    names = set(shard_names(output)) - {shard.name for shard in but}
    for table in _tables(output, sorted(names), ["error"]):
        counts.update(counted(table["error"]))
    return counts


# What helps where all photographs were rejected, most of them for this reason.
MENDS = {
    "missing": "see that they are where they were listed",
    "unreadable": "see that they may be read (error_detail says why not)",
    "changed": "let no other write them meanwhile",
    "too_large": "give a larger --max-megapixels or --max-megabytes",
}
RETRY = ", then --retry-rejected takes them"


def check_some_used(photographs: int, rejected: Mapping[str, int], retry: str = "") -> None:
    """
    Raises:
        FlowerrayError: all of the `photographs` were `rejected`, counted by reason, most first;
            `retry` says how a job tries them again.
    """
    if photographs and sum(rejected.values()) >= photographs:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
        mend = MENDS.get(next(iter(rejected)))
        mend = f"{mend}{retry}" if mend else "give photographs in formats that it reads"
        raise FlowerrayError(
            f"none of the {photographs:,} photographs could be used: {counts}; {mend}"
        )


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value of `column` is in it, nulls aside."""
    found = pc.value_counts(column.drop_null()).to_pylist()
    return {one["values"]: one["counts"] for one in found}


def shard_names(output: Output) -> list[str]:
    return our_names(output.folder, "shards")
