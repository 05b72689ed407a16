"""Tables as Parquet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError
from flowerray.sources.columns import WantedColumns
from flowerray.sources.text_tables import ROWS_AT_ONCE, partitions_of

# Parquet


def rows_of_parquet(opened: Any, path: str, wants: WantedColumns) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(opened)
    schema, partitions = file.schema_arrow, partitions_of(path, wants.path)
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
