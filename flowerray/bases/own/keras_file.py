"""A `.keras` file as data: what loading it would make, read before it is loaded."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

# What a base may be made of: layers and operations that only compute. Left out are those that hold
# code or name files: Lambda, TFSMLayer, JaxLayer, FlaxLayer, TorchModuleWrapper, lookups of words.
LAYERS = (
    *("Activation", "ActivityRegularization", "Add", "AlphaDropout", "Attention", "Average"),
    *("AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D", "AdditiveAttention"),
    *("AveragePooling1D", "AveragePooling2D", "BatchNormalization", "CenterCrop", "Concatenate"),
    *("Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Cropping1D", "Cropping2D"),
    *("Dense", "DepthwiseConv1D", "DepthwiseConv2D", "Dot", "Dropout", "ELU", "EinsumDense"),
    *("Embedding", "Flatten", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GroupNormalization"),
    *("GroupQueryAttention", "Identity", "InputLayer", "LayerNormalization", "LeakyReLU"),
    *("Maximum", "MaxPooling1D", "MaxPooling2D", "Minimum", "MultiHeadAttention", "Multiply"),
    *("Normalization", "PReLU", "Permute", "RMSNormalization", "ReLU", "RepeatVector"),
    *("Rescaling", "Reshape", "Resizing", "SeparableConv1D", "SeparableConv2D", "Softmax"),
    *("SpatialDropout1D", "SpatialDropout2D", "Subtract", "UnitNormalization", "UpSampling1D"),
    *("UpSampling2D", "ZeroPadding1D", "ZeroPadding2D"),
)
OBJECTS = frozenset(
    {
        *(f"keras.layers.{name}" for name in LAYERS),
        *("None.__keras_tensor__", "keras.DTypePolicy", "keras.Sequential"),
        "keras.src.models.functional.Functional",
        *("keras.src.applications.convnext.LayerScale",),
        "keras.src.applications.inception_resnet_v2.CustomScaleLayer",
    }
)
MODULES = (  # of which anything goes: numbers, and operations on tensors
    *("keras.initializers.", "keras.regularizers.", "keras.constraints.", "keras.optimizers."),
    *("keras.losses.", "keras.metrics.", "keras.src.ops.numpy.", "keras.src.ops.nn."),
)


def check(data: bytes) -> None:
    """
    Raises:
        ValueError: `data` is no Keras model, or one with anything that could be code.
    """
    strange = sorted(
        {name for name in made_by(data) if name not in OBJECTS and not name.startswith(MODULES)}
    )
    if strange:
        raise ValueError(f"it holds {', '.join(strange)}, which could run code: refused")


def made_by(data: bytes) -> list[str]:
    """Everything that loading the `.keras` file in `data` would make, as ``module.class``, the
    model first.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config = json.loads(archive.read("config.json"))
        found = list(_objects_in(config))
    except (KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ValueError(f"no Keras model: {error}") from None
    if not found:
        raise ValueError("no Keras model: it makes nothing")
    return found


def _objects_in(config: Any) -> Iterator[str]:
    """At any depth."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield f"{config.get('module')}.{config['class_name']}"
            # Where nothing is registered, Keras writes nothing or the class' own name.
            if config.get("registered_name") not in (None, config["class_name"]):
                yield str(config["registered_name"])
        for value in config.values():
            yield from _objects_in(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects_in(value)
