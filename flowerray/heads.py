"""Head recipes: each builds a Keras model on a base's features and fits it.

A recipe is a generator: it yields a dict of numbers after every epoch (or once), for progress and
history, and returns the fitted model, which maps float32 features (n, *feature_shape) to
probabilities (n, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

Epochs = Generator[dict[str, float], None, Any]


@dataclass(frozen=True)
class TrainingData:
    """Features (n, *feature_shape) float16, perhaps on disk, and class indices (n,) int64."""

    features: np.ndarray
    labels: np.ndarray
    valid_features: np.ndarray
    valid_labels: np.ndarray
    classes: int


def logistic(data: TrainingData, epochs: int | None, seed: int) -> Epochs:
    """Multinomial logistic regression on average-pooled features, its strength cross-validated."""
    import keras
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    pooled = pool(data.features)
    scaler = StandardScaler().fit(pooled)
    scaled = scaler.transform(pooled)
    smallest = int(np.bincount(data.labels, minlength=data.classes).min())
    strengths = [0.0003, 0.001, 0.003, 0.01, 0.03]
    best = 0.003
    if smallest >= 5:
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        losses = {}
        for strength in strengths:
            model = LogisticRegression(C=strength, max_iter=1000)
            probabilities = cross_val_predict(
                model, scaled, data.labels, cv=folds, method="predict_proba"
            )
            losses[strength] = log_loss(data.labels, probabilities)
        best = min(losses, key=lambda strength: losses[strength])
    fitted = LogisticRegression(C=best, max_iter=1000).fit(scaled, data.labels)

    features = keras.Input(data.features.shape[1:], name="features")
    layer = features
    if data.features.ndim == 4:
        layer = keras.layers.GlobalAveragePooling2D()(layer)
    coefficients = fitted.coef_ / scaler.scale_
    intercept = fitted.intercept_ - coefficients @ scaler.mean_
    if data.classes == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercept = np.concatenate([-intercept / 2, intercept / 2])
    dense = keras.layers.Dense(data.classes, activation="softmax", name="probabilities")
    model = keras.Model(features, dense(layer), name="logistic")
    dense.set_weights([coefficients.T.astype(np.float32), intercept.astype(np.float32)])
    yield {"C": best, **_accuracies(model, data)}
    return model


def article(data: TrainingData, epochs: int | None, seed: int) -> Epochs:
    """The article's head: flatten, Dense 512 ReLU, BatchNormalization, Dropout 0.5, softmax;
    Adam at 1e-5, categorical cross-entropy, batches of 25, 20 epochs."""
    import keras

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
    train = _batches(data.features, data.labels, data.classes, 25, seed)
    valid = _batches(data.valid_features, data.valid_labels, data.classes, 25, None)
    for epoch in range(epochs or 20):
        history = model.fit(
            train, validation_data=valid, initial_epoch=epoch, epochs=epoch + 1, verbose=0
        )
        yield {name: float(values[-1]) for name, values in history.history.items()}
    return model


RECIPES: dict[str, Callable[[TrainingData, int | None, int], Epochs]] = {
    "logistic": logistic,
    "article": article,
}


def pool(features: np.ndarray) -> np.ndarray:
    """Features averaged over their map, float32 (n, channels); flat ones as they are."""
    chunks = [features[i : i + 1024].astype(np.float32) for i in range(0, len(features), 1024)]
    return np.concatenate([c.mean(axis=(1, 2)) if c.ndim == 4 else c for c in chunks])


def predict(model: Any, features: np.ndarray) -> np.ndarray:
    """Probabilities float32 (n, classes) for float16 features that may be larger than memory."""
    chunks = (features[i : i + 512].astype(np.float32) for i in range(0, len(features), 512))
    return np.concatenate([np.asarray(model(chunk, training=False)) for chunk in chunks])


def _accuracies(model: Any, data: TrainingData) -> dict[str, float]:
    train = predict(model, data.features).argmax(axis=1) == data.labels
    valid = predict(model, data.valid_features).argmax(axis=1) == data.valid_labels
    return {"accuracy": float(train.mean()), "val_accuracy": float(valid.mean())}


def _batches(
    features: np.ndarray, labels: np.ndarray, classes: int, size: int, seed: int | None
) -> Any:
    """Batches of (float32 features, one-hot labels), reshuffled each epoch where there's a seed."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.random = None if seed is None else np.random.default_rng(seed)
            self.order = np.arange(len(features))
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(features) // size)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self.order[index * size : (index + 1) * size]
            return features[rows].astype(np.float32), np.eye(classes, dtype=np.float32)[
                labels[rows]
            ]

        def on_epoch_end(self) -> None:
            if self.random is not None:
                self.random.shuffle(self.order)

    return Batches()
