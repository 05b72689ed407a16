"""Labels against the truth, where somebody knows it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flowerray import corrections, names, scores, shards, uris
from flowerray.errors import FlowerrayError
from flowerray.tables import LIKELY, Columns


def evaluate(labels: str, truth: str, columns: Columns = LIKELY) -> dict[str, Any]:
    """Scores of a label run (see ``flowerray.scores.score``), over the photographs that got a
    label and have a truth; `without_label` and `without_truth` count the others.

    Args:
        labels: directory that `flowerray label` wrote.
        truth: a table with columns file (or uri, path and the like) and label, file being the end
            of a photograph's path; or the word ``folders``: each photograph's own folder is its
            label.
        columns: what the table calls these two, where it is something else.

    Raises:
        FlowerrayError: no labels or not yet all, no such CSV or columns, no photograph in common.
    """
    output = shards.read_output(labels, "labels")
    output.check_whole()
    table = shards.read_table(output, ["uri", "label"])
    paths = table["uri"].to_pylist()
    predicted = [names.class_name(label) for label in table["label"].to_pylist()]
    if truth == "folders":
        known = [names.class_name(os.path.basename(os.path.dirname(uri))) for uri in paths]
    else:
        known = _truth_of(paths, truth, columns)
    pairs = [(t, p) for t, p in zip(known, predicted, strict=True) if t and p is not None]
    if not pairs:
        raise FlowerrayError(
            f"{truth} has no photograph of {labels}: is it the truth of another pile?"
        )
    classes = sorted({name for pair in pairs for name in pair})
    index = {name: i for i, name in enumerate(classes)}
    true, found = (np.array([index[name] for name in side]) for side in zip(*pairs, strict=True))
    return {
        **scores.score(true, found, classes),
        "without_label": sum(p is None for p in predicted),
        "without_truth": sum(
            p is not None and not t for t, p in zip(known, predicted, strict=True)
        ),
    }


def _truth_of(paths: list[str], path: str, columns: Columns) -> list[str | None]:
    truth = corrections.read(path, "file", columns)
    depths = sorted({file.count("/") for file in truth}, reverse=True)  # the most of a path counts
    found: list[str | None] = []
    for uri in paths:
        parts = uris.key(uri).split("/")
        ends = ("/".join(parts[-(slashes + 1) :]) for slashes in depths)
        found.append(next((truth[end] for end in ends if end in truth), None))
    return found
