"""Datasets of FiftyOne."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from flowerray.exports.directory import build
from flowerray.exports.rows import Exported, judgement, labelled_rows, local_path_of
from flowerray.outputs.record import Output
from flowerray.settings import ExportSettings


def write(
    out: str, tables: Iterable[pa.Table], output: Output, settings: ExportSettings
) -> Exported:
    """A directory with a dataset."""
    classes = output.run["config"]["classes"]
    done = build(out, output, settings, lambda root: (_fill(tables, root, classes), 0))
    return Exported(*done)


def _fill(tables: Iterable[pa.Table], root: Path, classes: list[str]) -> int:
    """A FiftyOneImageClassificationDataset in `root`; returns its photographs.

    The keys of its ``labels.json`` are absolute paths, so the photographs stay where they are:
    https://docs.voxel51.com/user_guide/import_datasets.html. Only a path that is no UTF-8 (its uri
    is file://) has a link in ``data/``, which must be there in any case.
    """
    number = {name: i for i, name in enumerate(classes)}
    count = 0
    (root / "data").mkdir()
    with open(root / "labels.json", "w", encoding="utf-8") as stream:
        stream.write(f'{{"classes": {json.dumps(classes)},\n"labels": {{')
        for row in labelled_rows(tables):
            path = local_path_of(
                row["uri"], "FiftyOne reads local files alone: choose another --format"
            )
            key = row["uri"]
            if isinstance(path, bytes):
                key = str(row["image_id"])
                suffix = os.path.splitext(path)[1].decode("ascii", "ignore")
                os.symlink(path, os.fsencode(root / "data" / (key + suffix)))
            label = {"label": number[row["label"]], "confidence": row["confidence"]}
            if judgement(row):
                label["attributes"] = judgement(row)
            stream.write(",\n" if count else "\n")
            stream.write(f"{json.dumps(key)}: {json.dumps(label)}")
            count += 1
        stream.write("}}\n")
    return count
