"""Dense layers that are fitted on the embedding in seconds, without Keras' loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from flowerray.heads.data import TrainingData, rows_of
from flowerray.heads.embedding import embedded, embedding_model
from flowerray.heads.models import predict

DenseLayers = list[tuple[np.ndarray, np.ndarray]]  # kernel (in, out) and bias (out,), ReLU between
# Of rows (n, width), their class indices (n,) and weights (n,), and a seed.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], DenseLayers]
# Inverse strength of the penalty, on features scaled to a mean square norm of 1; by 5-fold
# log-loss on 1,500 photographs of three flowers it is the best of 1, 3, 10, 30, 100 for nearly
# every way of pooling.
C = 10.0
# By the same measure 128 units with a penalty of 1 beat 256 units, and penalties of 0.1, 3 and 5.
HIDDEN_UNITS, PENALTY, NETWORKS = 128, 1.0, 3
MLP_BATCH, MLP_STEPS, MLP_EPOCHS = 64, 400, 15  # at least so many steps, and so many epochs


def on_embedding(data: TrainingData, seed: int, fit: Fit) -> tuple[dict[str, float], Any]:
    model = with_head(embedding_model(data), data, seed, fit)
    return _accuracies(model, data), model


def with_head(embedder: Any, data: TrainingData, seed: int, fit: Fit, dropout: float = 0.0) -> Any:
    """The Keras model `embedder` and dense layers that are fitted on what it gives."""
    import keras

    own, mirrored = embedded(data, embedder)
    layers = fit(*rows_of(data, own, mirrored, np.arange(len(own))), seed)
    layer = embedder.output
    for kernel, bias in layers[:-1]:
        hidden = keras.layers.Dense(len(bias), activation="relu")
        layer = hidden(layer)
        hidden.set_weights([kernel, bias])
    if dropout:
        layer = keras.layers.Dropout(dropout, name="head_dropout")(layer)
    last = keras.layers.Dense(data.classes, activation="softmax", name="probabilities")
    model = keras.Model(embedder.input, last(layer))
    last.set_weights(list(layers[-1]))
    return model


def fit_logistic(
    rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, seed: int
) -> DenseLayers:
    from sklearn.linear_model import LogisticRegression

    centre, spread = _centre_and_spread(rows)
    fitted = LogisticRegression(C=C, max_iter=2000)
    with one_thread():
        fitted.fit((rows - centre) / spread, labels, sample_weight=weights)
    kernel, bias = fitted.coef_.T, fitted.intercept_
    if kernel.shape[1] == 1:  # scikit-learn keeps one column for two classes
        kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.tile(bias, 2) / [-2, 2]
    return [_unscaled(kernel, bias, centre, spread)]


def fit_mlp(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, seed: int) -> DenseLayers:
    """The mlp head on embeddings `rows` float32 (n, width) of classes `labels` int (n,), each of
    which is there; `weights` (n,) multiply the loss."""
    from sklearn.neural_network import MLPClassifier

    centre, spread = _centre_and_spread(rows)
    spread /= math.sqrt(rows.shape[1])  # each input then varies by about 1
    batch = min(MLP_BATCH, len(rows))
    epochs = max(MLP_EPOCHS, math.ceil(MLP_STEPS * batch / len(rows)))
    hidden, last = [], []
    for network in range(NETWORKS):
        fitted = MLPClassifier(
            (HIDDEN_UNITS,),
            alpha=PENALTY,
            batch_size=batch,
            max_iter=epochs,
            n_iter_no_change=epochs,
            random_state=(1000 * seed + network) % 2**32,
        )
        with one_thread(), _without_convergence_warnings():
            fitted.fit((rows - centre) / spread, labels, sample_weight=weights)
        (first, second), (first_bias, second_bias) = fitted.coefs_, fitted.intercepts_
        if second.shape[1] == 1:
            second = np.concatenate([-second, second], axis=1) / 2
            second_bias = np.tile(second_bias, 2) / [-2, 2]
        hidden.append(_unscaled(first, first_bias, centre, spread))
        last.append((second, second_bias))
    # Side by side, networks whose logits are averaged are one network.
    kernel, bias = np.concatenate([k for k, _ in last]), np.sum([b for _, b in last], axis=0)
    return [
        (np.concatenate([k for k, _ in hidden], axis=1), np.concatenate([b for _, b in hidden])),
        ((kernel / NETWORKS).astype(np.float32), (bias / NETWORKS).astype(np.float32)),
    ]


DENSE = {"logistic": fit_logistic, "mlp": fit_mlp}  # by the recipe


def _centre_and_spread(rows: np.ndarray) -> tuple[np.ndarray, float]:
    centre = rows.mean(axis=0)
    return centre, float(np.sqrt(np.square(rows - centre).sum(axis=1).mean())) or 1.0


def _unscaled(
    kernel: np.ndarray, bias: np.ndarray, centre: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """The layer for rows as they are, fitted on ``(rows - centre) / spread``."""
    kernel = kernel / spread
    return kernel.astype(np.float32), (bias - centre @ kernel).astype(np.float32)


def predict_dense(layers: DenseLayers, rows: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of embeddings `rows` (n, width)."""
    for kernel, bias in layers[:-1]:
        rows = np.maximum(rows @ kernel + bias, 0)
    kernel, bias = layers[-1]
    logits = rows @ kernel + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread. Their threads wait for each other by spinning: on small
    matrices they gain little, and beside another busy process they lose ten times as much."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@contextmanager
def _without_convergence_warnings() -> Iterator[None]:
    """The epochs are counted, not waited for until nothing improves."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _accuracies(model: Any, data: TrainingData) -> dict[str, float]:
    train = predict(model, data.features).argmax(axis=1) == data.labels
    valid = predict(model, data.valid_features).argmax(axis=1) == data.valid_labels
    return {"accuracy": float(train.mean()), "val_accuracy": float(valid.mean())}
