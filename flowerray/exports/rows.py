"""What goes into an export, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from flowerray.errors import FlowerrayError
from flowerray.outputs.derived import row_dicts
from flowerray.outputs.record import Output
from flowerray.settings import ExportSettings
from flowerray.stores import is_remote, local_path


@dataclass(frozen=True)
class Exported:
    """How many photographs an export holds, how many could not be copied into it, and the XML of
    the Label Studio project that its tasks are for."""

    photographs: int
    unreadable: int = 0
    labelling_configuration: str | None = None


class Write(Protocol):
    """Writes a format: the rows in `tables`, a table a shard, to `out`."""

    def __call__(
        self, out: str, tables: Iterable[pa.Table], output: Output, settings: ExportSettings
    ) -> Exported: ...


def labelled_rows(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    """The rows that have a label."""
    return row_dicts(table.filter(pc.is_valid(table["label"])) for table in tables)


def local_path_of(uri: str, otherwise: str) -> str | bytes:
    if is_remote(uri):
        raise FlowerrayError(f"{uri} is remote, and {otherwise}")
    return local_path(uri)


def judgement(row: dict[str, Any]) -> dict[str, Any]:
    """How novel the photograph is and whether its label was accepted, where the labels say so."""
    return {name: row[name] for name in ("novelty", "accepted") if row.get(name) is not None}
