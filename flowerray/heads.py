"""Head recipes: each builds a Keras model on a base's features and fits it.

A recipe is a generator: after every epoch (or once) it yields the numbers of that epoch and the
model, which maps float32 features (n, *feature_shape) to probabilities (n, classes) by a last layer
`probabilities`. A recipe that has epochs goes on from a model that an earlier run saved, and gives
what an undisturbed run would have.

logistic and mlp fit dense layers on an embedding of the features, in seconds, so they can be fitted
again on parts of the data: `out_of_fold` says what they make of photographs that they haven't seen.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowerray import copies

Epochs = Iterator[tuple[dict[str, float], Any]]
DenseLayers = list[tuple[np.ndarray, np.ndarray]]  # kernel (in, out) and bias (out,), ReLU between
# Of rows (n, width), their class indices (n,) and weights (n,), and a seed.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], DenseLayers]


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
    same number for copies of one photograph, see ``flowerray.copies``; None: nobody looked yet.
    """

    features: np.ndarray
    labels: np.ndarray
    valid_features: np.ndarray
    valid_labels: np.ndarray
    classes: int
    mirrored: np.ndarray | None = None
    class_weights: np.ndarray | None = None
    rest: Any = None
    groups: np.ndarray | None = None

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


# Inverse strength of the penalty, on features scaled to a mean square norm of 1; by 5-fold
# log-loss on 1,500 photographs of three flowers it is the best of 1, 3, 10, 30, 100 for nearly
# every way of pooling.
C = 10.0
# By the same measure 128 units with a penalty of 1 beat 256 units, and penalties of 0.1, 3 and 5.
HIDDEN_UNITS, PENALTY, NETWORKS = 128, 1.0, 3
MLP_BATCH, MLP_STEPS, MLP_EPOCHS = 64, 400, 15  # at least so many steps, and so many epochs


def logistic(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """Multinomial logistic regression on the embedding. Convex: the same features give the same
    labels whatever the seed, which draws the folds of calibration and the centres of novelty."""
    if before is None:
        yield _on_embedding(data, seed, _fit_logistic)


def mlp(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """Three small networks of one hidden layer on the embedding, their logits averaged."""
    if before is None:
        yield _on_embedding(data, seed, fit_mlp)


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
        _compile(model, keras.optimizers.Adam(1e-5))
    yield from _epochs(model, data, epochs or 20, seed, before)


FINETUNE_EPOCHS, MIXUP = 4, 0.4


def finetune(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """The base's layers after the features and the mlp head on what they give, trained on: AdamW,
    its rate falling from 3e-5 to 0 along a cosine, Dropout 0.4 before the last layer, 4 epochs.

    The head is fitted first, so that its first steps don't spoil the pretrained layers (Kumar et
    al. 2022, https://arxiv.org/abs/2202.10054). It knows the photographs that it was fitted on by
    heart, so mixtures of them are trained on (Zhang et al. 2018, https://arxiv.org/abs/1710.09412).
    Normalisation layers keep the statistics that they were pretrained with.
    """
    import keras

    epochs = epochs or FINETUNE_EPOCHS
    if before is not None:
        model = before.model
    else:
        keras.utils.set_random_seed(seed)
        rest = data.rest
        for layer in rest.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        some = predict(rest, data.features[:: math.ceil(len(data.features) / 512)])
        embedder = keras.Model(rest.input, _embedding_of(rest.output, some))
        model = _with_head(embedder, data, seed, fit_mlp, dropout=0.4)
        rows = len(data.features) * (1 if data.mirrored is None else 2)
        steps = epochs * math.ceil(rows / BATCH_SIZE)
        rate = keras.optimizers.schedules.CosineDecay(3e-5, steps)
        _compile(model, keras.optimizers.AdamW(rate))
    yield from _epochs(model, data, epochs, seed, before, MIXUP)


RECIPES: dict[str, Callable[[TrainingData, int | None, int, Progress | None], Epochs]] = {
    "mlp": mlp,
    "logistic": logistic,
    "article": article,
    "finetune": finetune,
}
FOLDS = 5


def out_of_fold(recipe: str, data: TrainingData, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices (m,) of training photographs, one for all copies of it, and their probabilities
    float32 (m, classes), each by a head fitted without its fold: of all that `folds` holds out.
    None for a recipe that takes too long."""
    fit = {"logistic": _fit_logistic, "mlp": fit_mlp}.get(recipe)
    if fit is None:
        return None
    own, mirrored = _embedded(data, _embedder(data))
    probabilities = np.full((len(own), data.classes), np.nan, np.float32)
    groups = with_copies(data).groups_to_train
    for train, held in folds(data.labels, seed, groups):
        rows, labels, weights = _rows(data, own, mirrored, train)
        probabilities[held] = predict_dense(fit(rows, labels, weights, seed), own[held])
    judged = copies.first_of_each(groups)
    judged = judged[~np.isnan(probabilities[judged, 0])]
    return (judged, probabilities[judged]) if len(judged) else None


def folds(
    labels: np.ndarray, seed: int, groups: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row indices to fit on and to hold out, stratified by class, all rows of a group together;
    every row is held out once, but for what a class has nothing beside: its only photograph, or the
    copies of that."""
    from sklearn.model_selection import StratifiedKFold

    groups = np.arange(len(labels)) if groups is None else groups
    different = copies.first_of_each(groups)
    # A class smaller than that has none in some folds, and at least one in what is fitted on.
    most = int(np.bincount(labels[different]).max())
    if most < 2:
        return
    splitter = StratifiedKFold(min(FOLDS, most), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        split = list(splitter.split(np.zeros(len(different)), labels[different]))
    for _, held in split:
        out = np.isin(groups, groups[different[held]])
        lost = np.setdiff1d(labels[out], labels[~out])
        out &= ~np.isin(groups, groups[out & np.isin(labels, lost)])
        if out.any():
            yield np.flatnonzero(~out), np.flatnonzero(out)


def with_copies(data: TrainingData) -> TrainingData:
    """`data` with the `groups` that its features tell, where nobody looked yet."""
    if data.groups is not None:
        return data
    embedder = _embedder(data)
    own, mirrored = _embedded(data, embedder)
    if len(data.valid_features):
        own = np.concatenate([own, predict(embedder, data.valid_features)])
    labels = np.concatenate([data.labels, data.valid_labels])
    if mirrored is not None:  # there is none of those to validate, which nothing is fitted on
        mirrored = np.concatenate([mirrored, own[len(mirrored) :]])
    return replace(data, groups=copies.by_features(own, labels, mirrored))


def embedding(model: Any, data: TrainingData) -> Any:
    """The Keras tensor in `model` that stands for a photograph: a vector of unit length. It is the
    one that the recipe classifies by, or else one made of the features beside it."""
    if "embedding" in [layer.name for layer in model.layers]:
        return model.get_layer("embedding").output
    return _embedding_of(model.inputs[0], data.features)


def _embedding_of(features: Any, examples: np.ndarray) -> Any:
    """The features compressed, averaged over the map, brought to unit length.

    Softsign, x / (1 + |x|) in units of the mean activation, keeps a few strong activations from
    speaking for the whole photograph.
    """
    import keras

    layer = keras.layers.Rescaling(1 / mean_activation(_chunks(examples)))(features)
    layer = keras.layers.Activation("softsign")(layer)
    if examples.ndim == 4:
        layer = keras.layers.GlobalAveragePooling2D()(layer)
    return keras.layers.UnitNormalization(name="embedding")(layer)


def _embedder(data: TrainingData) -> Any:
    import keras

    features = keras.Input(data.features.shape[1:], name="features")
    return keras.Model(features, _embedding_of(features, data.features))


def without_optimizer(model: Any) -> Any:
    """A copy of `model` in float32 that can only predict; Adam's state is twice as large."""
    import keras

    def in_float32(layer: Any) -> Any:
        config = layer.get_config()
        if "dtype" in config:  # an operation between layers has none
            config["dtype"] = "float32"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=in_float32, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def set_temperature(model: Any, temperature: float) -> None:
    """Divide the logits of the last layer, `probabilities`, by `temperature`."""
    last = model.get_layer("probabilities")
    last.set_weights([values / temperature for values in last.get_weights()])


def predict(model: Any, features: np.ndarray) -> np.ndarray:
    """What `model` makes of float16 features that may be larger than memory, in float32."""
    import keras

    return np.concatenate(
        [keras.ops.convert_to_numpy(model(f, training=False)) for f in _chunks(features)]
    )


def _chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), 256):
        yield features[start : start + 256].astype(np.float32)


def _on_embedding(data: TrainingData, seed: int, fit: Fit) -> tuple[dict[str, float], Any]:
    model = _with_head(_embedder(data), data, seed, fit)
    return _accuracies(model, data), model


def _with_head(embedder: Any, data: TrainingData, seed: int, fit: Fit, dropout: float = 0.0) -> Any:
    """The Keras model `embedder` and dense layers that are fitted on what it gives."""
    import keras

    own, mirrored = _embedded(data, embedder)
    layers = fit(*_rows(data, own, mirrored, np.arange(len(own))), seed)
    layer = embedder.output
    for kernel, bias in layers[:-1]:
        hidden = keras.layers.Dense(len(bias), activation="relu")
        layer = hidden(layer)
        hidden.set_weights([kernel, bias])
    if dropout:
        layer = keras.layers.Dropout(dropout)(layer)
    last = keras.layers.Dense(data.classes, activation="softmax", name="probabilities")
    model = keras.Model(embedder.input, last(layer))
    last.set_weights(list(layers[-1]))
    return model


def _embedded(data: TrainingData, embedder: Any) -> tuple[np.ndarray, np.ndarray | None]:
    mirrored = None if data.mirrored is None else predict(embedder, data.mirrored)
    return predict(embedder, data.features), mirrored


def _rows(
    data: TrainingData, own: np.ndarray, mirrored: np.ndarray | None, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, labels and weights to fit on: the `chosen` photographs' and their mirrors'."""
    rows, labels = own[chosen], data.labels[chosen]
    if mirrored is not None:
        rows, labels = np.concatenate([rows, mirrored[chosen]]), np.tile(labels, 2)
    weights = np.ones(data.classes) if data.class_weights is None else data.class_weights
    return rows, labels, weights[labels]


def _fit_logistic(
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


def mean_activation(chunks: Iterable[np.ndarray]) -> float:
    """The mean of |x| over float32 features where x is not 0: VGG16's are nine tenths zeros."""
    total, count = 0.0, 0
    for chunk in chunks:
        total += float(np.abs(chunk).sum(dtype=np.float64))
        count += int(np.count_nonzero(chunk))
    return total / max(count, 1) or 1.0


def _accuracies(model: Any, data: TrainingData) -> dict[str, float]:
    train = predict(model, data.features).argmax(axis=1) == data.labels
    valid = predict(model, data.valid_features).argmax(axis=1) == data.valid_labels
    return {"accuracy": float(train.mean()), "val_accuracy": float(valid.mean())}


BATCH_SIZE = 25  # the article's


def _compile(model: Any, optimizer: Any) -> None:
    model.compile(
        optimizer=optimizer,
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )


def _epochs(
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
    features: list[np.ndarray],
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
