"""How good labels are: accuracy, per-class precision and recall, the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


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


def as_text(scores: dict[str, Any]) -> str:
    """`scores` as a person reads them: a line, a table a class, the confusion matrix."""
    classes = list(scores["per_class"])
    width = max(12, *(len(name) for name in classes)) + 2
    lines = [
        f"accuracy {scores['accuracy']:.4f}",
        f"errors {scores['errors']}/{scores['photographs']}",
        "",
        f"{'class':<{width}}{'precision':>10}{'recall':>10}{'support':>10}",
    ]
    for name, numbers in scores["per_class"].items():
        precision, recall = (_or_dash(numbers[key]) for key in ("precision", "recall"))
        lines.append(f"{name:<{width}}{precision:>10}{recall:>10}{numbers['support']:>10}")
    lines += ["", f"{'truth / label':<{width}}" + "".join(f"{name:>{width}}" for name in classes)]
    for name, row in zip(classes, scores["confusion"], strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{count:>{width}}" for count in row))
    return "\n".join(lines)


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
