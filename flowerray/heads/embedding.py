"""From a base's features to the embedding that logistic and mlp heads, novelty and checks see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from flowerray.heads.data import TrainingData
from flowerray.heads.models import chunks, predict
from flowerray.heads.rows import Features


def embedding(model: Any, data: TrainingData) -> Any:
    """The Keras tensor in `model` that stands for a photograph: a vector of unit length. It is the
    one that the recipe classifies by, or else one made of the features beside it."""
    if "embedding" in [layer.name for layer in model.layers]:
        return model.get_layer("embedding").output
    return embedding_of(model.inputs[0], data.features, data.embedded)


def embedding_of(features: Any, examples: Features, embedded: bool = False) -> Any:
    """The features compressed, averaged over the map, brought to unit length.

    Softsign, x / (1 + |x|) in units of the mean activation, keeps a few strong activations from
    speaking for the whole photograph. What is `embedded` already has only lost its exact length.
    """
    import keras

    if embedded:
        return keras.layers.UnitNormalization(name="embedding")(features)
    unit = 1 / mean_activation(chunks(examples))
    layer = keras.layers.Rescaling(unit, name="scaled")(features)
    layer = keras.layers.Activation("softsign", name="softsign")(layer)
    if examples.ndim == 4:
        layer = keras.layers.GlobalAveragePooling2D(name="mean")(layer)
    return keras.layers.UnitNormalization(name="embedding")(layer)


def embedding_model(data: TrainingData) -> Any:
    import keras

    features = keras.Input(data.features.shape[1:], name="features")
    return keras.Model(features, embedding_of(features, data.features, data.embedded))


def embedded(data: TrainingData, embedder: Any) -> tuple[np.ndarray, np.ndarray | None]:
    mirrored = None if data.mirrored is None else predict(embedder, data.mirrored)
    return predict(embedder, data.features), mirrored


def mean_activation(chunks: Iterable[np.ndarray]) -> float:
    """The mean of |x| over float32 features where x is not 0: VGG16's are nine tenths zeros."""
    total, count = 0.0, 0
    for chunk in chunks:
        total += float(np.abs(chunk).sum(dtype=np.float64))
        count += int(np.count_nonzero(chunk))
    return total / max(count, 1) or 1.0
