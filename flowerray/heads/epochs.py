"""Keras' training loop, which a killed trainer goes on with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowerray.heads.data import Epochs, Progress, TrainingData
from flowerray.heads.rows import Features

BATCH_SIZE = 25  # the article's


def compile_head(model: Any, optimizer: Any) -> None:
    model.compile(
        optimizer=optimizer,
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )


def run_epochs(
    model: Any,
    data: TrainingData,
    epochs: int,
    seed: int,
    before: Progress | None,
    mixup: float = 0.0,
) -> Epochs:
    features = [data.features] if data.mirrored is None else [data.features, data.mirrored]
    valid = _batches([data.valid_features], data.valid_labels, data.classes, None)
    for epoch in range(before.epochs if before else 0, epochs):
        _seed_dropout(model, seed, epoch)
        train = _batches(
            features, data.labels, data.classes, (seed, epoch), mixup, data.class_weights
        )
        history = model.fit(train, validation_data=valid, shuffle=False, verbose=0)
        yield {name: float(values[-1]) for name, values in history.history.items()}, model


def _seed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Give each epoch its own random numbers, which a saved model doesn't remember."""
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):
            # The second word counts steps; a million an epoch keeps epochs apart.
            layer.seed_generator.state.assign(
                np.array([seed, epoch * 1_000_000 % 2**32], np.uint32)
            )


def _batches(
    features: list[Features],
    labels: np.ndarray,
    classes: int,
    seed: tuple[int, int] | None,
    mixup: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> Any:
    """Batches of (float32 features, one-hot labels) of each copy of the photographs, shuffled where
    there's a seed, then mixed with themselves in another order by shares of Beta(mixup, mixup).

    With `class_weights` (classes,) each row's weight in the loss comes third: the mean of its
    classes' by their shares. (Keras' own ``class_weight`` takes the largest share's alone.)
    """
    import keras

    photographs = len(labels)
    order = np.arange(photographs * len(features))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return math.ceil(len(order) / BATCH_SIZE)

        def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
            rows = order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
            copies, which = np.divmod(rows, photographs)
            pairs = zip(copies, which, strict=True)
            chosen = np.stack([features[c][i] for c, i in pairs]).astype(np.float32)
            truth = np.eye(classes, dtype=np.float32)[labels[which]]
            if seed is not None and mixup:
                chance = np.random.default_rng((*seed, index))
                other, share = chance.permutation(len(rows)), np.float32(chance.beta(mixup, mixup))
                chosen = share * chosen + (1 - share) * chosen[other]
                truth = share * truth + (1 - share) * truth[other]
            if class_weights is None:
                return chosen, truth
            return chosen, truth, truth @ class_weights.astype(np.float32)

    return Batches()
