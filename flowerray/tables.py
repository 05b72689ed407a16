"""Tables and lists as people and programs write them: photographs, and what is said of them.

One reader for the inputs of every job, for truths and for corrections. CSV is read by Python's own
module, row by row: memory is bounded, each fault has its line, and no Arrow thread is left with
memory that Python owns. What a table may look like is in docs/inputs.md.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.progress import say
from flowerray.storage import unreadable

LISTS, TEXTS, PARQUETS = (".txt",), (".csv", ".tsv", ".tab"), (".parquet", ".pq")
ROWS_AT_ONCE = 8192
HEAD_BYTES = 4096  # by which an encoding shows
SEPARATORS = ",;\t|"

# The columns that have a meaning here, and by which other names they are known, likeliest first.
# Compared without case, spaces, dashes and underscores.
MEANINGS: dict[str, tuple[str, ...]] = {
    "uri": (
        *("uri", "path", "filepath", "imagepath", "file", "filename", "imagefile"),
        *("imagefilename", "imagename", "image", "img", "imgpath", "url", "imageurl"),
        *("photograph", "photo", "picture"),
    ),
    "label": (
        *("label", "class", "classname", "category", "categoryname", "species", "target"),
        *("labelname", "groundtruth", "truth"),
    ),
    "split": ("split",),
    # These two are of what `flowerray check --out` writes.
    "check": ("check",),
    "suggested_label": ("suggestedlabel",),
}


@dataclass(frozen=True)
class Columns:
    """The columns that hold a photograph's uri and its label, where a user names them."""

    uri: str | None = None
    label: str | None = None


LIKELY = Columns()  # the likeliest ones are taken


def is_named_so(path: str) -> bool:
    """Whether `path` is called as a list or table is."""
    return _suffix(path) in (*LISTS, *TEXTS, *PARQUETS)


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
    wants = _Wanted(path, columns, uri, wanted)
    try:
        yield from chain.from_iterable(_read(part, wants) for part in parts or [])
    except FileNotFoundError:
        parts = parts_of(path) if stores.is_remote(path) else None
        if not parts:
            raise FlowerrayError(f"no table at {path}: no such file") from None
        yield from chain.from_iterable(_read(part, wants) for part in parts)


def at(path: str, row: int | None) -> str:
    """The place of a row, for a message."""
    if row is None:
        return path
    return f"{path}, {'row' if _suffix(path) in PARQUETS else 'line'} {row:,}"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


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
            yield entry.path if _suffix(entry.name) in (*TEXTS, *PARQUETS) else None
    for path in subdirectories:
        yield from _parts_below(path)


def _parts_in_store(directory: str) -> Iterator[str | None]:
    for page in stores.source_at(directory).files(directory):
        for uri, _ in page:
            *folders, name = uri.removeprefix(directory + "/").split("/")
            if any(part.startswith((".", "_")) for part in (*folders, name)):
                continue
            whole = all("=" in folder for folder in folders)
            yield uri if whole and _suffix(name) in (*TEXTS, *PARQUETS) else None


def _read(path: str, wants: _Wanted) -> Iterator[pa.RecordBatch]:
    suffix = _suffix(path)
    try:
        opened = stores.source_at(path).open(path)
        try:
            if suffix in LISTS:
                yield from _lines_as_rows(opened, path)
            elif suffix in TEXTS:
                yield from _csv(opened, path, wants)
            else:
                yield from _parquet(opened, path, wants)
        finally:
            opened.close()
    except FileNotFoundError:
        raise
    except UnicodeError:
        raise FlowerrayError(f"{path} is no text in the encoding that it begins with") from None
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


# Text


def _text(opened: Any, path: str) -> Iterator[str]:
    """The lines of a text with their ends, decoded. A byte that is no UTF-8 stays as a surrogate,
    for a path may have it."""
    head = opened.read(HEAD_BYTES)
    opened.seek(0)
    encoding = _encoding(head)
    faults = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    text = io.TextIOWrapper(io.BufferedReader(opened), encoding, faults, newline="")
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            raise FlowerrayError(
                f"{at(path, number)} has a NUL byte: it is damaged or no text; save it as CSV in "
                "UTF-8 again"
            )
        yield line


def _encoding(head: bytes) -> str:
    """By its mark, or UTF-16 without one by the zeros of every second byte; else UTF-8."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    even, odd = head[::2].count(0), head[1::2].count(0)
    if odd > len(head) // 4 and not even:
        return "utf-16-le"
    if even > len(head) // 4 and not odd:
        return "utf-16-be"
    return "utf-8"


def not_utf8(place: str) -> FlowerrayError:
    """What to raise where the bytes at `place` are no UTF-8."""
    return FlowerrayError(
        f"{place} is no UTF-8 but Windows-1252 (cp1252) or another older encoding: save it as "
        "UTF-8, such as by `iconv -f cp1252 -t utf-8`"
    )


def _lines_as_rows(opened: Any, path: str) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(_text(opened, path), start=1):
        if line.strip():
            rows.append((number, line.rstrip("\r\n")))
        if len(rows) == ROWS_AT_ONCE:
            yield _batch_of_lines(rows)
            rows = []
    yield _batch_of_lines(rows)


def _batch_of_lines(rows: list[tuple[int, str]]) -> pa.RecordBatch:
    # Binary: a line may be a path whose bytes are no UTF-8.
    uris = pa.array([os.fsencode(line) for _, line in rows], pa.binary())
    return pa.record_batch({"uri": uris, "row": pa.array([n for n, _ in rows], pa.int64())})


# CSV


def _csv(opened: Any, path: str, wants: _Wanted) -> Iterator[pa.RecordBatch]:
    lines, skipped, separator = _text(opened, path), 0, None
    first = ""
    for first in lines:
        named = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
        if named and not skipped:
            separator = named[1]
        elif first.strip():
            break
        skipped += 1
    if not first.strip():
        raise FlowerrayError(f"{path} is empty")
    separator = separator or _separator(first, wants)
    reader = csv.reader(
        chain([first], lines), delimiter=separator, skipinitialspace=True, strict=True
    )
    partitions = _partitions(path, wants.path)
    fixed = list(partitions.values())
    rows: list[list[str]] = []
    numbers: list[int] = []
    names: list[str] | None = None
    try:
        for cells in reader:
            number = skipped + reader.line_num
            if names is None:
                names = cells
                if any(map(_has_surrogate, names)):
                    raise not_utf8(at(path, number))
                chosen = wants.chosen([*names, *partitions])
                continue
            if len(cells) != len(names):
                if not any(cells[len(names) :] if len(cells) > len(names) else cells):
                    cells = (cells + [""] * len(names))[: len(names)]
                else:
                    raise FlowerrayError(
                        f"{at(path, number)} has {len(cells)} fields where the header has "
                        f"{len(names)}: quote fields that hold a {separator!r}"
                    )
            if not any(cells):  # as a spreadsheet leaves below its last row
                continue
            rows.append(cells)
            numbers.append(number)
            if len(rows) == ROWS_AT_ONCE:
                yield _batch_of_cells(rows, numbers, chosen, path, fixed)
                rows, numbers = [], []
    except csv.Error as error:
        raise FlowerrayError(
            f"{at(path, skipped + reader.line_num)} can't be read: {error}; a quote may not be "
            "closed there or above"
        ) from None
    if names is not None:
        yield _batch_of_cells(rows, numbers, chosen, path, fixed)


def _separator(header: str, wants: _Wanted) -> str:
    """What parts the most names of `header`, one of which can be the uri's if any can."""

    def merit(separator: str) -> tuple[bool, int]:
        try:
            names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        except csv.Error:
            return False, 0
        return wants.place("uri", names) is not None, len(names)

    return max(SEPARATORS, key=merit)


def _batch_of_cells(
    rows: list[list[str]], numbers: list[int], chosen: dict[str, int], path: str, fixed: list[Any]
) -> pa.RecordBatch:
    width = len(rows[0]) if rows else 0
    columns: dict[str, pa.Array] = {}
    for meaning, place in chosen.items():
        if rows and place >= width:
            values = [fixed[place - width]] * len(rows)
        else:
            values = [row[place] or None for row in rows]
        if meaning == "uri":  # a path may be no UTF-8, all else must be
            texts = [None if value is None else os.fsencode(value) for value in values]
            columns[meaning] = pa.array(texts, pa.binary())
            continue
        try:
            columns[meaning] = pa.array(values, pa.string())
        except UnicodeEncodeError:
            bad = next(n for n, v in zip(numbers, values, strict=True) if v and _has_surrogate(v))
            raise not_utf8(at(path, bad)) from None
    return pa.record_batch({**columns, "row": pa.array(numbers, pa.int64())})


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


# Parquet


def _parquet(opened: Any, path: str, wants: _Wanted) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(opened)
    schema, partitions = file.schema_arrow, _partitions(path, wants.path)
    names = [*schema.names, *partitions]
    chosen = {meaning: names[place] for meaning, place in wants.chosen(names).items()}
    for meaning, name in chosen.items():
        if name not in partitions:
            _check_type(schema.field(name).type, meaning, name, path)
    columns = [name for name in chosen.values() if name not in partitions]
    row = 0
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
        found = {
            meaning: pa.repeat(pa.scalar(partitions[name], pa.string()), len(batch))
            if name in partitions
            else _as_text(batch[name])
            for meaning, name in chosen.items()
        }
        numbers = pa.array(range(row + 1, row + 1 + len(batch)), pa.int64())
        yield pa.record_batch({**found, "row": numbers})
        row += len(batch)


def _check_type(kind: pa.DataType, meaning: str, name: str, path: str) -> None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not pa.types.is_nested(kind):
        return
    inside = {kind.field(i).name for i in range(kind.num_fields)} if kind.num_fields else set()
    if {"bytes", "path"} <= inside:
        raise FlowerrayError(
            f"column {name} of {path} holds the pictures themselves, as Hugging Face's datasets "
            "do: write each one's bytes to a file and name the files in a column uri"
        )
    mend = "name a column with one class a row" if meaning == "label" else "name a column of text"
    raise FlowerrayError(
        f"column {name} of {path} is {kind}, no text: {mend} by --{meaning}-column"
    )


def _as_text(column: pa.Array) -> pa.Array:
    """`column` as text, an empty one null: 1 for the number 1.0, True and False as Python does."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_floating(kind):
        return pa.array([_number(value) for value in column.to_pylist()], pa.string())
    if pa.types.is_boolean(kind):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.cast(pa.binary())
    texts = column.cast(pa.string())
    return pa.array([text or None for text in texts.to_pylist()], pa.string())


def _number(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _partitions(path: str, table: str) -> dict[str, str | None]:
    """What the directories of `table` say of all rows of its part `path`: ``label=rose``."""
    folders = path.removeprefix(table).split("/")[:-1]
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {
        name: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for name, _, value in pairs
    }


# Columns


class _Wanted:
    """Which columns of a table are read as what; a guess is said once."""

    def __init__(self, path: str, columns: Columns, uri: str, wanted: tuple[str, ...]) -> None:
        self.path, self.wanted, self._said = path, wanted, False
        self.given = {"uri": columns.uri, "label": columns.label}
        self.known = {
            meaning: (uri, *(n for n in MEANINGS[meaning] if n != uri))
            if meaning == "uri"
            else MEANINGS[meaning]
            for meaning in wanted
        }

    def place(self, meaning: str, names: list[str]) -> int | None:
        """Which of `names` has `meaning`; None where none does."""
        keys = [_key(name) for name in names]
        given = self.given.get(meaning)
        for known in [_key(given)] if given is not None else self.known[meaning]:
            if keys.count(known) > 1:
                exact = [i for i, name in enumerate(names) if name == (given or known)]
                if len(exact) != 1:
                    twice = names[keys.index(known)].strip()
                    raise FlowerrayError(f"{self.path} has two columns {twice}: rename one")
                return exact[0]
            if known in keys:
                return keys.index(known)
        return None

    def chosen(self, names: list[str]) -> dict[str, int]:
        """The place in `names` of each column that is wanted and there.

        Raises:
            FlowerrayError: there is none for the uri, or none of a name that was given.
        """
        found = {meaning: self.place(meaning, names) for meaning in self.wanted}
        there = ", ".join(name.strip() for name in names if name.strip())
        for meaning, given in self.given.items():
            if given is not None and meaning in found and found[meaning] is None:
                raise FlowerrayError(f"{self.path} has no column {given}: it has {there}")
        if found["uri"] is None:
            raise self._without_uri(names, there)
        if not self._said:
            self._say(names, found)
        return {meaning: place for meaning, place in found.items() if place is not None}

    def _say(self, names: list[str], found: dict[str, int | None]) -> None:
        self._said = True
        for meaning in ("uri", "label"):
            place = found.get(meaning)
            right = self.known.get(meaning, ("",))[0]
            if place is None or self.given[meaning] is not None or _key(names[place]) == right:
                continue
            name = names[place].strip()
            say(
                f"{self.path}: column {name} is taken for the {meaning}; --{meaning}-column names "
                "another"
            )

    def _without_uri(self, names: list[str], there: str) -> FlowerrayError:
        if not there:
            return FlowerrayError(f"{self.path} is empty")
        if any("/" in name or "\\" in name or re.search(r"\.\w{2,4}$", name) for name in names):
            return FlowerrayError(
                f"{self.path} has no header, or one without a uri column: make its first line "
                f"{self.known['uri'][0]},label or as its columns are"
            )
        return FlowerrayError(
            f"{self.path} has no {self.known['uri'][0]} column: name the one of {there} by "
            "--uri-column, or rename it"
        )


def _key(name: str) -> str:
    return re.sub(r"[\s_\-\ufeff]+", "", name).casefold()
