"""How good labels are: accuracy, per-class precision and recall, the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flowerray.progress import MOST_TOLD, some_of

MATRIX_WIDTH = 100  # characters of a confusion matrix that a terminal shows


def score(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of class indices `predicted` against `truth`, both (n,) and of `classes`.

    Returns JSON-able: photographs, errors, accuracy, per_class {name: precision, recall, support}
    (null where nothing was predicted or is there), confusion [true][predicted].
    """
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (truth, predicted), 1)
    right = np.diag(confusion)
    per_class = {
        name: {
            "precision": _share(right[i], confusion[:, i].sum()),
            "recall": _share(right[i], confusion[i].sum()),
            "support": int(confusion[i].sum()),
        }
        for i, name in enumerate(classes)
    }
    return {
        "photographs": len(truth),
        "errors": int(len(truth) - right.sum()),
        "accuracy": _share(right.sum(), len(truth)),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def confusions(scores: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The errors of `scores`, most frequent first: truth, label, how many photographs."""
    classes, counts = list(scores["per_class"]), np.array(scores["confusion"])
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
    places = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [(classes[t], classes[p], int(counts[t, p])) for t, p in places]


def as_text(scores: dict[str, Any], rest: str | Callable[[], str]) -> str:
    """`scores` as a person reads them: a line, a table a class, the confusion matrix. Of many
    classes those with the most errors, and of a matrix that is too wide the most frequent errors;
    `rest` has the others."""
    classes = list(scores["per_class"])
    width = max(12, *(len(name) for name in classes)) + 2
    wrong = [sum(row) - row[i] for i, row in enumerate(scores["confusion"])]
    if len(classes) > MOST_TOLD:
        classes = [classes[i] for i in sorted(range(len(wrong)), key=lambda i: -wrong[i])]
    table = []
    for name in classes:
        numbers = scores["per_class"][name]
        precision, recall = (_or_dash(numbers[key]) for key in ("precision", "recall"))
        table.append(f"{name:<{width}}{precision:>10}{recall:>10}{numbers['support']:>10}")
    lines = [
        f"accuracy {scores['accuracy']:.4f}",
        f"errors {scores['errors']}/{scores['photographs']}",
        "",
        f"{'class':<{width}}{'precision':>10}{'recall':>10}{'support':>10}",
        *some_of(table, rest),
        "",
    ]
    if width * (len(classes) + 1) <= MATRIX_WIDTH:
        lines.append(f"{'truth / label':<{width}}" + "".join(f"{n:>{width}}" for n in classes))
        for name, row in zip(classes, scores["confusion"], strict=True):
            lines.append(f"{name:<{width}}" + "".join(f"{count:>{width}}" for count in row))
    else:
        lines.append(f"{'truth':<{width}}{'label':<{width}}{'photographs':>12}")
        frequent = confusions(scores)
        told = [f"{true:<{width}}{label:<{width}}{n:>12}" for true, label, n in frequent]
        lines += some_of(told, rest)
    return "\n".join(lines)


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
