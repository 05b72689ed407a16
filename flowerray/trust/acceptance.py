"""Which labels are accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.heads import classifier
from flowerray.progress import say
from flowerray.settings import LabelSettings
from flowerray.trust import calibration


@dataclass(frozen=True)
class Acceptance:
    """Which labels are accepted: those with at least their class' threshold's confidence (see
    ``flowerray.trust.calibration.thresholds``) that are no more novel than 1. None: nobody
    asked."""

    min_precision: float | None
    min_confidence: float | None
    thresholds: dict[str, dict[str, Any]] | None

    @classmethod
    def of(cls, classes: list[str], settings: LabelSettings) -> Acceptance:
        """As the settings ask, from the classifier's evidence."""
        found = None
        if settings.min_precision is not None:
            table = classifier.evidence(settings.classifier)
            table = table.filter(pc.less_equal(table["novelty"], 1))
            found = calibration.thresholds(
                pc.index_in(table["prediction"], pa.array(classes)).to_numpy(),
                table["confidence"].to_numpy(),
                pc.equal(table["prediction"], table["label"]).to_numpy(),
                classes,
                settings.min_precision,
            )
            for name, one in found.items():
                least = one["threshold"]
                said = f"accepted from confidence {least:.3f}" if least is not None else "to review"
                say(f"label: {name}: {said}, precision {settings.min_precision} asked for")
        elif settings.min_confidence is not None:
            one = {"threshold": settings.min_confidence, "precision_bound": None, "photographs": 0}
            found = {name: dict(one) for name in classes}
        return cls(settings.min_precision, settings.min_confidence, found)

    def __call__(
        self,
        classes: list[str],
        labels: np.ndarray,
        confidence: np.ndarray,
        novelty: np.ndarray,
    ) -> pa.Array:
        """Whether each of n labels, their numbers in `classes` (n,), is accepted with its
        `confidence` and `novelty` float32 (n,): bool (n,), null where nobody asked."""
        if self.thresholds is None:
            return pa.nulls(len(labels), pa.bool_())
        found = (self.thresholds[name]["threshold"] for name in classes)
        least = np.array([np.inf if one is None else one for one in found], np.float32)
        return pa.array((confidence >= least[labels]) & (novelty <= 1))
