"""What people say of photographs: tables of uris and labels, as corrections and as truths."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.progress import say
from flowerray.sources import names, tables, text_tables, uris
from flowerray.sources.columns import LIKELY, Columns

Corrections = dict[str, str | None]  # uri: label, None for none of the classes


def read(path: str, key: str = "uri", columns: Columns = LIKELY) -> Corrections:
    """The labels in the table at `path` by uri; of several for one the last holds. A relative uri
    counts from the table's directory, as in a list of photographs. With the key "file", of a truth,
    they are by the end of a photograph's path, as ``flowerray.sources.uris.key`` has it.

    Of the findings that `flowerray check --out` writes the suggested labels are taken.

    Raises:
        FlowerrayError: there is no such file, or it has other columns.
    """
    at = path if stores.is_remote(path) else os.path.abspath(stores.expanded(path))
    found: Corrections = {}
    for cell, label, place in _rows(at, columns, key):
        if key == "file":
            found[_end_of_path(os.fsdecode(cell))] = label
        else:
            found[uris.of_cell(cell, os.path.dirname(at), place)] = label
    return found


def _end_of_path(written: str) -> str:
    if uris.is_file_uri(written):
        written = os.fsdecode(stores.local_path(written))
    if not stores.is_remote(written):
        written = written.replace("\\", "/").removeprefix("./")
    return uris.key(written)


def _rows(path: str, columns: Columns, uri: str) -> Iterator[tuple[bytes | str, str | None, str]]:
    """The uri, the label and the place in the file of each row."""
    wanted = ("uri", "label", "check", "suggested_label")
    suggested = others = 0
    for rows in tables.read(path, columns, uri, wanted):
        there = rows.schema.names
        if "label" not in there:
            raise FlowerrayError(
                f"{path} has no label column: it should be a table with columns {uri} and label; "
                "--label-column names another"
            )
        findings = {"check", "suggested_label"} <= set(there)
        for row in rows.to_pylist():
            place = text_tables.at(path, row["row"])
            label = row["label"]
            if findings:
                if row["check"] != "mislabelled" or row["suggested_label"] is None:
                    others += 1
                    continue
                suggested, label = suggested + 1, row["suggested_label"]
            if row["uri"] is None:
                raise FlowerrayError(f"{place} has no {uri}: fill it in or remove the row")
            yield row["uri"], names.class_name(label), place
    if suggested or others:
        say(
            f"{path} holds findings of `flowerray check`: the {suggested:,} suggested labels are "
            f"taken, the {others:,} other findings are not"
        )
