"""Labels against the truth, where somebody knows it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from flowerray.errors import FlowerrayError
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.progress import Progress
from flowerray.sources import answers, names, uris
from flowerray.sources.columns import LIKELY, Columns
from flowerray.trust import scores


def evaluate(labels: str, truth: str, columns: Columns = LIKELY) -> dict[str, Any]:
    """Scores of a label run (see ``flowerray.trust.scores.score``), over the photographs that got a
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
    output = read_output(labels, "labels")
    output.check_whole()
    truth_of = _own_folder if truth == "folders" else _said_by(truth, columns)
    pairs: Counter[tuple[str, str]] = Counter()
    without_label = without_truth = 0
    progress = Progress("evaluate", output.manifest.rows)
    progress.ready(0)
    for table in shards.iter_shards(output, ["uri", "label"]):
        progress.add(len(table))
        labelled = zip(table["uri"].to_pylist(), table["label"].to_pylist(), strict=True)
        for uri, label in labelled:
            if label is None:
                without_label += 1
            elif known := truth_of(uri):
                pairs[known, names.same(label)] += 1
            else:
                without_truth += 1
    progress.finish()
    if not pairs:
        raise FlowerrayError(
            f"{truth} has no photograph of {labels}: is it the truth of another pile?"
        )
    classes = sorted({name for pair in pairs for name in pair})
    index = {name: i for i, name in enumerate(classes)}
    counts = list(pairs.values())
    true, found = (
        np.repeat(np.array([index[name] for name in side], np.int32), counts)
        for side in zip(*pairs, strict=True)
    )
    return {
        **scores.score(true, found, classes),
        "without_label": without_label,
        "without_truth": without_truth,
    }


def _own_folder(uri: str) -> str | None:
    return names.class_name(os.path.basename(os.path.dirname(uri)))


def _said_by(path: str, columns: Columns) -> Callable[[str], str | None]:
    truth = answers.truths(path, columns)
    depths = sorted({file.count("/") for file in truth}, reverse=True)  # the most of a path counts

    def truth_of(uri: str) -> str | None:
        parts = uris.key(uri).split("/")
        ends = ("/".join(parts[-(slashes + 1) :]) for slashes in depths)
        return next((truth[end] for end in ends if end in truth), None)

    return truth_of
