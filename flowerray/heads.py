"""Head recipes: each builds a Keras model on a base's features and fits it.

A recipe is a generator: after every epoch (or once) it yields the numbers of that epoch and the
model, which maps float32 features (n, *feature_shape) to probabilities (n, classes). The last
model is the fitted one. A recipe that has epochs goes on from a model that an earlier run saved,
and gives what an undisturbed run would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Epochs = Iterator[tuple[dict[str, float], Any]]


@dataclass(frozen=True)
class Progress:
    """Where an earlier run of the recipe ended: epochs done, and the model after them."""

    epochs: int
    model: Any


@dataclass(frozen=True)
class TrainingData:
    """Features (n, *feature_shape) float16, perhaps on disk, and class indices (n,) int64."""

    features: np.ndarray
    labels: np.ndarray
    valid_features: np.ndarray
    valid_labels: np.ndarray
    classes: int


# Inverse strength of the penalty, on features scaled to a mean square norm of 1; by 5-fold
# log-loss on 1,500 photographs of three flowers it is the best of 1, 3, 10, 30, 100 for nearly
# every way of pooling.
C = 10.0


def logistic(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """Multinomial logistic regression on compressed, averaged features of unit length.

    Softsign, x / (1 + |x|) in units of the mean activation, keeps a few strong activations from
    speaking for the whole photograph; the average over the map and the unit length follow.
    Convex: the same features give the same head whatever the seed.
    """
    import keras
    from sklearn.linear_model import LogisticRegression

    scale = _mean_activation(data.features)
    features = keras.Input(data.features.shape[1:], name="features")
    layer = keras.layers.Rescaling(1 / scale)(features)
    layer = keras.layers.Activation("softsign")(layer)
    if data.features.ndim == 4:
        layer = keras.layers.GlobalAveragePooling2D()(layer)
    embedding = keras.layers.UnitNormalization()(layer)
    dense = keras.layers.Dense(data.classes, activation="softmax", name="probabilities")
    model = keras.Model(features, dense(embedding), name="logistic")

    embedded = predict(keras.Model(features, embedding), data.features)
    centre = embedded.mean(axis=0)
    spread = float(np.sqrt(np.square(embedded - centre).sum(axis=1).mean())) or 1.0
    fitted = LogisticRegression(C=C, max_iter=2000)
    fitted.fit((embedded - centre) / spread, data.labels)
    # Centre and spread are folded into the layer, which takes the embedding as it is.
    kernel = fitted.coef_ / spread
    bias = fitted.intercept_ - kernel @ centre
    if data.classes == 2:  # scikit-learn keeps one row for two classes
        kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    dense.set_weights([kernel.T.astype(np.float32), bias.astype(np.float32)])
    yield _accuracies(model, data), model


def article(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """The article's head: flatten, Dense 512 ReLU, BatchNormalization, Dropout 0.5, softmax;
    Adam at 1e-5, categorical cross-entropy, batches of 25, 20 epochs."""
    import keras

    if before is not None:
        model = before.model
    else:
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input(data.features.shape[1:], name="features"),
                keras.layers.Flatten(),
                keras.layers.Dense(512, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(data.classes, activation="softmax", name="probabilities"),
            ],
            name="article",
        )
        model.compile(
            optimizer=keras.optimizers.Adam(1e-5),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
    valid = _batches(data.valid_features, data.valid_labels, data.classes, None)
    for epoch in range(before.epochs if before else 0, epochs or 20):
        _seed_dropout(model, seed, epoch)
        train = _batches(data.features, data.labels, data.classes, (seed, epoch))
        history = model.fit(train, validation_data=valid, shuffle=False, verbose=0)
        yield {name: float(values[-1]) for name, values in history.history.items()}, model


RECIPES: dict[str, Callable[[TrainingData, int | None, int, Progress | None], Epochs]] = {
    "logistic": logistic,
    "article": article,
}


def without_optimizer(model: Any) -> Any:
    """A copy of `model` that can only predict; Adam's state is twice as large as the model."""
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def predict(model: Any, features: np.ndarray) -> np.ndarray:
    """Probabilities float32 (n, classes) for float16 features that may be larger than memory."""
    chunks = (features[i : i + 512].astype(np.float32) for i in range(0, len(features), 512))
    return np.concatenate([np.asarray(model(chunk, training=False)) for chunk in chunks])


def _mean_activation(features: np.ndarray) -> float:
    """The mean of |x| where x is not 0: VGG16's features are nine tenths zeros."""
    total, count = 0.0, 0
    for start in range(0, len(features), 512):
        chunk = np.abs(features[start : start + 512].astype(np.float32))
        total += float(chunk.sum(dtype=np.float64))
        count += int(np.count_nonzero(chunk))
    return total / max(count, 1) or 1.0


def _accuracies(model: Any, data: TrainingData) -> dict[str, float]:
    train = predict(model, data.features).argmax(axis=1) == data.labels
    valid = predict(model, data.valid_features).argmax(axis=1) == data.valid_labels
    return {"accuracy": float(train.mean()), "val_accuracy": float(valid.mean())}


def _seed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Give each epoch its own random numbers, which a saved model doesn't remember."""
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):
            # The second word counts steps; a million an epoch keeps epochs apart.
            layer.seed_generator.state.assign(np.array([seed, epoch * 1_000_000], np.uint32))


BATCH_SIZE = 25  # the article's


def _batches(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: tuple[int, int] | None
) -> Any:
    """Batches of (float32 features, one-hot labels), shuffled where there's a seed."""
    import keras

    order = np.arange(len(features))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return math.ceil(len(features) / BATCH_SIZE)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            rows = order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
            one_hot = np.eye(classes, dtype=np.float32)[labels[rows]]
            return features[rows].astype(np.float32), one_hot

    return Batches()
