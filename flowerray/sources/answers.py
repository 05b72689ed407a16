"""What people say of photographs: tables of uris and labels, as corrections and as truths."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.progress import say
from flowerray.sources import names, tables, text_tables, uris
from flowerray.sources.columns import LIKELY, Columns
from flowerray.stores.folder import whole_file

Corrections = dict[str, str | None]  # uri: label, None where a photograph is to be left out
ANSWERS = pa.schema(
    [(name, pa.string()) for name in ("uri", "label", "who", "when")]
    + [("round", pa.int64()), ("audited", pa.bool_())]
)


@dataclass(frozen=True)
class Applied:
    """Of the photographs in tables of corrections how many were corrected, and how many were
    `left_out`, by why."""

    applied: int
    left_out: dict[str, int]


def truths(path: str, columns: Columns = LIKELY) -> Corrections:
    """The labels in the table at `path` by the end of a photograph's path, as
    ``flowerray.sources.uris.key`` has it; of several for one the last holds.

    Raises:
        FlowerrayError: there is no such file, or it has other columns.
    """
    at = path if stores.is_remote(path) else os.path.abspath(stores.expanded(path))
    return {
        _end_of_path(os.fsdecode(row["uri"])): row["label"] for row, _ in _rows(at, columns, "file")
    }


def read(paths: str, columns: Columns = LIKELY) -> pa.Table:
    """What people said of photographs, ANSWERS: one row a photograph, of the tables at `paths`,
    which have commas between. Of several answers for one photograph the newest holds, by `when`
    (ISO 8601; without it oldest), else the one that comes last. A relative uri counts from its
    table's directory, as in a list of photographs.

    Of the findings that `flowerray check --out` writes the suggested labels are taken.

    Raises:
        FlowerrayError: there is no such file, or it has other columns.
    """
    rows = []
    for path in _separate(paths):
        at = path if stores.is_remote(path) else os.path.abspath(stores.expanded(path))
        for row, place in _rows(at, columns, "uri"):
            rows.append({**row, "uri": uris.of_cell(row["uri"], os.path.dirname(at), place)})
    return merged([pa.Table.from_pylist(rows, ANSWERS)], told_of=paths)


def merged(tables: list[pa.Table], told_of: str = "") -> pa.Table:
    """Answers, ANSWERS, one row a photograph, the newest of each as `read` has it; how many were
    contradicted is said of `told_of`, if that is given."""
    newest: dict[str, dict[str, Any]] = {}
    different: dict[str, Any] = {}  # photographs with several answers: another one
    for row in (row for table in tables for row in table.to_pylist()):
        before = newest.get(row["uri"])
        later = before is None or (row["when"] or "") >= (before["when"] or "")
        if before is not None and before["label"] != row["label"]:
            different[row["uri"]] = before["label"] if later else row["label"]
        if later:
            newest[row["uri"]] = row
    if different and told_of:
        uri, other = next(iter(different.items()))
        say(
            f"{told_of}: {len(different):,} photographs have different answers, the newest holds: "
            f"{uri} is {newest[uri]['label']}, and was {other}"
        )
    return pa.Table.from_pylist(list(newest.values()), ANSWERS)


def ask(path: str, photographs: list[str]) -> None:
    """Write a table of these uris for people to answer: its column `label` is empty, and nothing
    in it leads them."""
    text = io.StringIO()
    rows = [("uri", "label"), *((uri, "") for uri in photographs)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    with whole_file(path) as stream:
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def is_asked(path: str) -> bool:
    """Whether such a table is on the disk, perhaps with answers in it."""
    return not stores.is_remote(path) and os.path.exists(stores.expanded(path))


def _separate(paths: str) -> list[str]:
    """`paths` apart; one that has a comma in its name stays whole where it is there."""
    if "," not in paths or os.path.exists(stores.expanded(paths)):
        return [paths]
    return [path.strip() for path in paths.split(",") if path.strip()]


def _end_of_path(written: str) -> str:
    if uris.is_file_uri(written):
        written = os.fsdecode(stores.local_path(written))
    if not stores.is_remote(written):
        written = written.replace("\\", "/").removeprefix("./")
    return uris.key(written)


def _rows(path: str, columns: Columns, uri: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row as ANSWERS has it, its uri as it is written, and its place in the file."""
    wanted = ("uri", "label", "check", "suggested_label", "who", "when", "round", "audited")
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
            who, when = (None if (v := row.get(n)) is None else str(v) for n in ("who", "when"))
            answer = {"uri": row["uri"], "label": names.class_name(label), "who": who, "when": when}
            audited = str(row.get("audited")).lower() == "true"
            yield {**answer, "round": _number(row.get("round")), "audited": audited}, place
    if suggested or others:
        say(
            f"{path} holds findings of `flowerray check`: the {suggested:,} suggested labels are "
            f"taken, the {others:,} other findings are not"
        )


def _number(written: Any) -> int | None:
    try:
        return None if written in (None, "") else int(written)
    except (TypeError, ValueError):
        return None
