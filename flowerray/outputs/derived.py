"""Files that are made of all labels of an output, and go when these change."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from flowerray.bases.spec import fingerprint_of
from flowerray.errors import FlowerrayError
from flowerray.outputs.manifest import Manifest
from flowerray.outputs.schemas import FOR_PEOPLE
from flowerray.stores.folder import Folder, unreadable

REVIEW = "review.parquet"
# What is of one classifier's labels alone; corrections.parquet is of the photographs, and stays.
EVIDENCE, SAMPLE, THRESHOLDS = "evidence.parquet", "audit.parquet", "thresholds.json"
ACCEPTANCE = ("min_precision", "min_confidence", "thresholds")
LABEL_FILES = {"csv": b"image_id,", "jsonl": b'{"image_id"'}  # of a file of all labels


def acceptance_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """How the labels of an output were accepted last, as ``flowerray.trust.acceptance``; outputs of
    before there was such a step have it in their configuration."""
    recorded = run.get("acceptance", run["config"])
    return {name: recorded.get(name) for name in ACCEPTANCE}


def accepted_labels(run: Mapping[str, Any]) -> str:
    """What tells these accepted labels from those of another decision or of other photographs,
    which what an audit said of them doesn't hold for."""
    return fingerprint_of([acceptance_of(run), Manifest.from_dict(run["manifest"]).fingerprint])


def delete_derived(folder: Folder, run: Mapping[str, Any]) -> None:
    """Remove what was made of all labels of an output, since these are to change."""
    if acceptance_of(run)["thresholds"] is not None:
        folder.remove(REVIEW)
    for ending in LABEL_FILES:
        if is_of_ours(folder, ending):
            folder.remove(f"labels.{ending}")


def check_derived(folder: Folder, ending: str) -> None:
    """
    Raises:
        FlowerrayError: a file of the user's own is where that of all labels is to be.
    """
    if is_of_ours(folder, ending) is False:
        raise FlowerrayError(
            f"{folder.file(f'labels.{ending}')} is there and none of flowerray's: move it away"
        )


def is_of_ours(folder: Folder, ending: str) -> bool | None:
    """Whether the file of all labels was written here, by how it begins; None: there is none."""
    try:
        with folder.open(f"labels.{ending}") as stream:
            return bytes(stream.read(64)).startswith(LABEL_FILES[ending])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(folder.file(f"labels.{ending}"), error) from None


def write_csv(tables: Iterable[pa.Table], stream: BinaryIO) -> int:
    """Label shards FOR_PEOPLE as CSV with a header, top_k as JSON; returns the rows."""
    names, count = FOR_PEOPLE, 0
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in row_dicts(tables):
        row["top_k"] = json.dumps(row["top_k"], ensure_ascii=False)
        writer.writerow([row.get(name) for name in names])
        count += 1
    text.detach()  # flushed; who opened the file closes it
    return count


def write_jsonl(tables: Iterable[pa.Table], stream: BinaryIO) -> int:
    """Label shards FOR_PEOPLE, a JSON object a line; returns the rows."""
    count = 0
    for row in row_dicts(tables):
        shown = {name: row[name] for name in FOR_PEOPLE if name in row}
        stream.write(json.dumps(shown, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


TABLE_WRITERS: dict[str, Callable[[Iterable[pa.Table], BinaryIO], int]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def row_dicts(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.to_pylist()
