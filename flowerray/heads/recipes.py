"""Head recipes: each builds a Keras model on a base's features and fits it.

A recipe is a generator: after every epoch (or once) it yields the numbers of that epoch and the
model, which maps float32 features (n, *feature_shape) to probabilities (n, classes) by a last layer
`probabilities`. A recipe that has epochs goes on from a model that an earlier run saved, and gives
what an undisturbed run would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flowerray.heads.data import Epochs, Progress, TrainingData
from flowerray.heads.dense import fit_logistic, fit_mlp, on_embedding, with_head
from flowerray.heads.embedding import embedding_of
from flowerray.heads.epochs import BATCH_SIZE, compile_head, run_epochs
from flowerray.heads.models import predict, size_of, to_train

EPOCHS = {"article": 20, "finetune": 4}  # of the recipes that have them


def logistic(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """Multinomial logistic regression on the embedding. Convex: the same features give the same
    labels whatever the seed, which draws the folds of calibration and the centres of novelty."""
    if before is None:
        yield on_embedding(data, seed, fit_logistic)


def mlp(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """Three small networks of one hidden layer on the embedding, their logits averaged."""
    if before is None:
        yield on_embedding(data, seed, fit_mlp)


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
        compile_head(model, keras.optimizers.Adam(1e-5))
    yield from run_epochs(model, data, epochs or EPOCHS["article"], seed, before)


MIXUP, WARM_UP = 0.4, 0.1
RATE, POWER = 1.4e-3, 0.8  # through the rates of two bases, see `finetune`


def finetune(data: TrainingData, epochs: int | None, seed: int, before: Progress | None) -> Epochs:
    """The base's layers after the features and the mlp head on what they give, trained on:
    AdamW, its rate rising in the first tenth of the steps, then falling to 0 along a cosine,
    Dropout 0.4 before the last layer, 4 epochs.

    The rate grows with the size of the base's weights, since Adam's steps are as large as its rate,
    whatever the gradients: 3e-5 for VGG16, 3.3e-4 for EfficientNet-Lite2, whose kernels are twenty
    times as large; those two rates were tried, the curve through them is for other bases.

    The head is fitted first, so that its first steps don't spoil the pretrained layers (Kumar et
    al. 2022, https://arxiv.org/abs/2202.10054). It knows the photographs that it was fitted on by
    heart, so mixtures of them are trained on (Zhang et al. 2018, https://arxiv.org/abs/1710.09412).
    Normalisation layers keep the statistics that they were pretrained with.
    """
    import keras

    epochs = epochs or EPOCHS["finetune"]
    if before is not None:
        model = before.model
    else:
        keras.utils.set_random_seed(seed)
        rest = to_train(data.rest)
        some = predict(rest, data.features[:: math.ceil(len(data.features) / 512)])
        embedder = keras.Model(rest.input, embedding_of(rest.output, some))
        model = with_head(embedder, data, seed, fit_mlp, dropout=0.4)
        rows = len(data.features) * (1 if data.mirrored is None else 2)
        steps = epochs * math.ceil(rows / BATCH_SIZE)
        warm = max(1, round(WARM_UP * steps))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            max(1, steps - warm),
            warmup_target=RATE * size_of(rest) ** POWER,
            warmup_steps=warm,
        )
        compile_head(model, keras.optimizers.AdamW(rate))
    yield from run_epochs(model, data, epochs, seed, before, MIXUP)


RECIPES: dict[str, Callable[[TrainingData, int | None, int, Progress | None], Epochs]] = {
    "mlp": mlp,
    "logistic": logistic,
    "article": article,
    "finetune": finetune,
}
