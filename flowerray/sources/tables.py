"""Tables and lists as people and programs write them: photographs, and what is said of them.

One reader for the inputs of every job, for truths and for corrections. CSV is read by Python's own
module, row by row: memory is bounded, each fault has its line, and no Arrow thread is left with
memory that Python owns. What a table may look like is in docs/inputs.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.sources.columns import LIKELY, Columns, WantedColumns
from flowerray.sources.parquet_tables import rows_of_parquet
from flowerray.sources.text_tables import (
    LISTS,
    PARQUETS,
    TEXTS,
    rows_of_csv,
    rows_of_list,
    suffix_of,
)
from flowerray.stores.folder import unreadable


def is_named_so(path: str) -> bool:
    """Whether `path` is called as a list or table is."""
    return suffix_of(path) in (*LISTS, *TEXTS, *PARQUETS)


def parts_of(directory: str) -> list[str] | None:
    """The files of a table that is a directory, as Spark, Dask and Ray write them, in order; None
    where anything else lies there. ``label=rose/`` in a path gives its rows a column.

    Raises:
        OSError: it can't be listed.
    """
    local = not stores.is_remote(directory)
    found = _parts_below(directory) if local else _parts_in_store(directory.rstrip("/"))
    parts = []
    for path in found:
        if path is None:
            return None
        parts.append(path)
    return sorted(parts) or None


def read(
    path: str,
    columns: Columns = LIKELY,
    uri: str = "uri",
    wanted: tuple[str, ...] = ("uri", "label", "split"),
) -> Iterator[pa.RecordBatch]:
    """The columns of the table or list at `path` that have a meaning here, as text: those of
    `wanted` that it has, under the names of MEANINGS, and `row`, the line or row in its file.

    The uris are as they are written. An empty field is null, and only that: NA may be a label.

    Args:
        path: a local path or a uri: a file, or a directory of part files.
        columns: the names that the user gives.
        uri: what the column of uris is called by right; all others are guesses, which are said.
        wanted: of MEANINGS; only uri must be there.

    Raises:
        FlowerrayError: no such file, or it is no such table; the message has the line.
        UsageError: it is no list or table by its name.
    """
    if not stores.is_remote(path) and os.path.isdir(path):
        parts = parts_of(path)
    elif not is_named_so(path):
        raise UsageError(
            f"{path} is a file: give a directory, a glob, a .txt list, a .csv or .parquet table"
        )
    else:
        parts = [path]
    wants = WantedColumns(path, columns, uri, wanted)
    try:
        yield from chain.from_iterable(_read(part, wants) for part in parts or [])
    except FileNotFoundError:
        parts = parts_of(path) if stores.is_remote(path) else None
        if not parts:
            raise FlowerrayError(f"no table at {path}: no such file") from None
        yield from chain.from_iterable(_read(part, wants) for part in parts)


def _parts_below(directory: str) -> Iterator[str | None]:
    subdirectories = []
    for entry in os.scandir(directory):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            if "=" not in entry.name:
                yield None
            subdirectories.append(entry.path)
        else:
            yield entry.path if suffix_of(entry.name) in (*TEXTS, *PARQUETS) else None
    for path in subdirectories:
        yield from _parts_below(path)


def _parts_in_store(directory: str) -> Iterator[str | None]:
    for page in stores.source_at(directory).files(directory):
        for uri, _ in page:
            *folders, name = uri.removeprefix(directory + "/").split("/")
            if any(part.startswith((".", "_")) for part in (*folders, name)):
                continue
            whole = all("=" in folder for folder in folders)
            yield uri if whole and suffix_of(name) in (*TEXTS, *PARQUETS) else None


def _read(path: str, wants: WantedColumns) -> Iterator[pa.RecordBatch]:
    suffix = suffix_of(path)
    try:
        opened = stores.source_at(path).open(path)
        try:
            if suffix in LISTS:
                yield from rows_of_list(opened, path)
            elif suffix in TEXTS:
                yield from rows_of_csv(opened, path, wants)
            else:
                yield from rows_of_parquet(opened, path, wants)
        finally:
            opened.close()
    except FileNotFoundError:
        raise
    except UnicodeError:
        raise FlowerrayError(f"{path} is no text in the encoding that it begins with") from None
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
