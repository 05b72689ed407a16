"""What a head is fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flowerray.heads import copies
from flowerray.heads.rows import Features, Rows

Epochs = Iterator[tuple[dict[str, float], Any]]


@dataclass(frozen=True)
class Progress:
    """Where an earlier run of the recipe ended: epochs done, and the model after them."""

    epochs: int
    model: Any


@dataclass(frozen=True)
class TrainingData:
    """Features (n, *feature_shape) float16, perhaps on disk, and class indices (n,) int64.

    `mirrored` are the features of the training photographs' mirror images, in the same order;
    `class_weights` (classes,) float64 multiply the loss; `rest` is the Keras model of the base's
    layers after the features, for finetune alone. `groups` int64 (n + those to validate,) has the
    same number for copies of one photograph, see ``flowerray.heads.copies``; None: nobody looked.
    `embedded`: the features are embeddings already. `audited`: the training photographs (indices)
    that people decided of a pile's random sample.
    """

    features: Features
    labels: np.ndarray
    valid_features: Features
    valid_labels: np.ndarray
    classes: int
    mirrored: Features | None = None
    class_weights: np.ndarray | None = None
    rest: Any = None
    groups: np.ndarray | None = None
    embedded: bool = False
    audited: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def fold(self, train: np.ndarray, held: np.ndarray) -> TrainingData:
        """The photographs `train` (indices) to train on, and those `held` out to validate."""
        return replace(
            self,
            features=Rows(self.features, train),
            labels=self.labels[train],
            valid_features=Rows(self.features, held),
            valid_labels=self.labels[held],
            mirrored=None if self.mirrored is None else Rows(self.mirrored, train),
            groups=None,
            audited=np.zeros(0, int),
        )

    @property
    def groups_to_train(self) -> np.ndarray:
        """Those of the training photographs (n,)."""
        assert self.groups is not None
        return self.groups[: len(self.labels)]

    @property
    def unseen(self) -> np.ndarray:
        """Indices of photographs to validate: one for all copies of it, and none that is a copy of
        a training photograph."""
        assert self.groups is not None
        valid = self.groups[len(self.labels) :]
        first = copies.first_of_each(valid)
        return first[~np.isin(valid[first], self.groups_to_train)]


def rows_of(
    data: TrainingData, own: np.ndarray, mirrored: np.ndarray | None, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, labels and weights to fit on: the `chosen` photographs' and their mirrors'."""
    rows, labels = own[chosen], data.labels[chosen]
    if mirrored is not None:
        rows, labels = np.concatenate([rows, mirrored[chosen]]), np.tile(labels, 2)
    weights = np.ones(data.classes) if data.class_weights is None else data.class_weights
    return rows, labels, weights[labels]
