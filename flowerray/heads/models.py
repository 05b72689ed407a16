"""Fitted Keras heads: what they predict, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


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
        [keras.ops.convert_to_numpy(model(f, training=False)) for f in chunks(features)]
    )


def chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), 256):
        yield features[start : start + 256].astype(np.float32)
