"""Tables and lists as text: CSV in its dialects and encodings, and lines."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from flowerray.errors import FlowerrayError
from flowerray.sources.columns import WantedColumns

LISTS, TEXTS, PARQUETS = (".txt",), (".csv", ".tsv", ".tab"), (".parquet", ".pq")


ROWS_AT_ONCE = 8192


HEAD_BYTES = 4096  # by which an encoding shows


SEPARATORS = ",;\t|"


def at(path: str, row: int | None) -> str:
    """The place of a row, for a message."""
    if row is None:
        return path
    return f"{path}, {'row' if suffix_of(path) in PARQUETS else 'line'} {row:,}"


def suffix_of(path: str) -> str:
    return os.path.splitext(path)[1].lower()


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


def rows_of_list(opened: Any, path: str) -> Iterator[pa.RecordBatch]:
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


def rows_of_csv(opened: Any, path: str, wants: WantedColumns) -> Iterator[pa.RecordBatch]:
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
    partitions = partitions_of(path, wants.path)
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


def _separator(header: str, wants: WantedColumns) -> str:
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


def partitions_of(path: str, table: str) -> dict[str, str | None]:
    """What the directories of `table` say of all rows of its part `path`: ``label=rose``."""
    folders = path.removeprefix(table).split("/")[:-1]
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {
        name: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for name, _, value in pairs
    }
