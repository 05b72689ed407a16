"""What was fetched from afar, in memory or in a file that Arrow owns.

Arrow's threads let go of what they read a moment after the reader is done. If that is an object of
Python's and Python is ending just then, the process aborts: so no store hands Arrow one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Range = tuple[int, int]  # of bytes: the first, and the one after the last
Fetch = Callable[[Sequence[Range]], Iterable[Any]]  # the bytes of each range, in order

MEMORY_BYTES = 64 << 20  # a file of which more is fetched lies on disk
PIECE_BYTES = 8 << 20  # of one range that is fetched
FOOTER_BYTES = 64 << 10  # at the end of a Parquet file: where its footer is looked for


def in_memory(data: Any) -> pa.NativeFile:
    """A file of `data`, which is bytes or has them as a buffer."""
    source = memoryview(data).cast("B")
    copy = pa.allocate_buffer(len(source))
    memoryview(copy).cast("B")[:] = source
    return pa.BufferReader(copy)


def fetched(
    size: int,
    fetch: Fetch,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> pa.NativeFile:
    """A file of `size` bytes. With `columns` or row `groups` it is a Parquet file of which only
    those are fetched: elsewhere it holds nothing.

    Raises:
        pyarrow.ArrowInvalid: then it is no Parquet file.
    """
    if columns is None and groups is None:
        return _filled(size, {}, [(0, size)], fetch)
    first = max(0, size - FOOTER_BYTES)
    known = {first: _bytes_of(fetch, (first, size))}
    footer = size - 8 - int.from_bytes(known[first][-8:-4], "little")
    if 0 <= footer < first:
        known = {footer: _bytes_of(fetch, (footer, first)) + known[first]}
        first = footer
    about = pq.read_metadata(_filled(size, known, [], fetch))
    wanted = [r for r in _chunks(about, columns, groups) if r[0] < first]
    return _filled(size, known, wanted, fetch)


def _bytes_of(fetch: Fetch, whole: Range) -> bytes:
    return b"".join(bytes(data) for data in fetch([whole]))


def _chunks(
    about: pq.FileMetaData, columns: Sequence[str] | None, groups: Sequence[int] | None
) -> Iterator[Range]:
    """Where the chunks of these columns and row groups lie, or of all."""
    for number in range(about.num_row_groups) if groups is None else groups:
        group = about.row_group(number)
        for i in range(group.num_columns):
            chunk = group.column(i)
            if columns is None or chunk.path_in_schema.partition(".")[0] in columns:
                first = chunk.data_page_offset
                if chunk.has_dictionary_page:
                    first = min(first, chunk.dictionary_page_offset or first)
                yield first, first + chunk.total_compressed_size


def _filled(
    size: int, known: dict[int, bytes], ranges: Sequence[Range], fetch: Fetch
) -> pa.NativeFile:
    """A file of `size` bytes, with those `known` by where they begin and those of `ranges`."""
    pieces = [
        (at, min(at + PIECE_BYTES, end))
        for start, end in ranges
        for at in range(start, end, PIECE_BYTES)
    ]
    if sum(end - start for start, end in pieces) <= MEMORY_BYTES:
        whole = pa.allocate_buffer(size)  # what is never written to takes no memory
        view = memoryview(whole).cast("B")
        for start, data in _written(known, pieces, fetch):
            view[start : start + len(data)] = data
        return pa.BufferReader(whole)
    with tempfile.NamedTemporaryFile(prefix="flowerray-") as file:
        file.truncate(size)
        for start, data in _written(known, pieces, fetch):
            os.pwrite(file.fileno(), data, start)
        return pa.OSFile(file.name)  # which keeps the file, when its name goes


def _written(
    known: dict[int, bytes], pieces: Sequence[Range], fetch: Fetch
) -> Iterator[tuple[int, Any]]:
    yield from known.items()
    at_once = MEMORY_BYTES // PIECE_BYTES
    for i in range(0, len(pieces), at_once):
        asked = pieces[i : i + at_once]
        for (start, end), data in zip(asked, fetch(asked), strict=True):
            if len(data) != end - start:
                raise OSError("the file became shorter while it was read")
            yield start, data
