"""Fitted Keras heads: what they predict, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from flowerray.bases.engines.keras import copied
from flowerray.errors import UsageError
from flowerray.heads.rows import Features
from flowerray.progress import some_names


def without_optimizer(model: Any) -> Any:
    """A copy of `model` in float32 that can only predict; Adam's state is twice as large."""
    return copied(model, "float32")


def to_train(rest: Any) -> Any:
    """A copy of `rest`, the base's layers after the features, to train on: in float32 where it has
    depthwise convolutions, which TensorFlow computes in bfloat16 on a CPU at half the speed."""
    import keras

    depthwise = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    if any(isinstance(layer, depthwise) for layer in rest.layers):
        copy = without_optimizer(rest)
    else:
        copy = keras.models.clone_model(rest)
        copy.set_weights(rest.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return copy


def size_of(model: Any) -> float:
    """The median kernel's root mean square, of those that are trained."""
    import keras

    kernels = [
        keras.ops.convert_to_numpy(weights)
        for weights in model.trainable_weights
        if len(weights.shape) > 1
    ]
    return float(np.median([np.sqrt(np.mean(np.square(kernel))) for kernel in kernels] or [0.01]))


def freeze_up_to(name: str, rest: Any, after: str | None) -> None:
    """Have training leave alone the layers of `rest`, which come after that called `after`, up
    to the one of this `name`.

    Raises:
        UsageError: it is none of them.
    """
    import keras

    names = [layer.name for layer in rest.layers]
    between = names[1:-1]
    if name not in between:
        others = f", or choose of {some_names(between)}" if between else ""
        raise UsageError(
            f"--from-layer {name}: the features are of {after}, and no layer after it that "
            f"others follow is called so; extract with --layer {name}{others}"
        )
    for layer in keras.Model(rest.input, rest.get_layer(name).output).layers:
        layer.trainable = False


def set_temperature(model: Any, temperature: float) -> None:
    """Divide the logits of the last layer, `probabilities`, by `temperature`."""
    last = model.get_layer("probabilities")
    last.set_weights([values / temperature for values in last.get_weights()])


def predict(model: Any, features: Features) -> np.ndarray:
    """What `model` makes of float16 features that may be larger than memory, in float32."""
    import keras

    return np.concatenate(
        [keras.ops.convert_to_numpy(model(f, training=False)) for f in chunks(features)]
    )


def chunks(features: Features) -> Iterator[np.ndarray]:
    for start in range(0, len(features), 256):
        yield features[start : start + 256].astype(np.float32)
