"""EfficientNet-Lite: its Keras model, and its weights out of PyTorch's.

EfficientNet without squeeze and excitation, with ReLU6, and with a stem, a top, a first and a last
stage that don't grow (models/official/efficientnet/lite of https://github.com/tensorflow/tpu).
Batch normalisations are folded into the convolutions before them: the weights are a kernel and a
bias for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

# Builder: how many times as wide and as deep as Lite0.
SCALES = {
    "EfficientNetLite0": (1.0, 1.0),
    "EfficientNetLite1": (1.0, 1.1),
    "EfficientNetLite2": (1.1, 1.2),
}
# Kernel, stride of the first block, expansion, channels, blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, TOP = 32, 1280  # channels
EPSILON = 1e-3


class Block(NamedTuple):
    """An inverted bottleneck; `name` as in Keras' own EfficientNets."""

    name: str
    kernel: int
    stride: int
    expansion: int
    channels: int


def build(builder: str, input_shape: tuple[int | None, ...] | None = None) -> Any:
    """The Keras model of one of `SCALES`, prepared pixels (n, *input_shape) to the last map
    (n, h, w, 1280), with random weights."""
    import keras

    layers = keras.layers
    inputs = keras.Input(input_shape or (None, None, 3))

    def convolved(x: Any, name: str, channels: int, kernel: int = 1, stride: int = 1) -> Any:
        convolution = layers.Conv2D(channels, kernel, stride, padding="same", name=f"{name}_conv")
        return convolution(x)

    def activated(x: Any, name: str) -> Any:
        return layers.ReLU(6.0, name=f"{name}_activation")(x)

    x = activated(convolved(inputs, "stem", STEM, 3, 2), "stem")
    for name, kernel, stride, expansion, channels in _blocks(builder):
        before = x
        if expansion != 1:
            wider = x.shape[-1] * expansion
            x = activated(convolved(x, f"{name}_expand", wider), f"{name}_expand")
        x = layers.DepthwiseConv2D(kernel, stride, padding="same", name=f"{name}_dwconv")(x)
        x = convolved(activated(x, name), f"{name}_project", channels)
        if stride == 1 and before.shape[-1] == channels:
            x = layers.Add(name=f"{name}_add")([x, before])
    return keras.Model(inputs, activated(convolved(x, "top", TOP), "top"), name=builder)


def weights_from(tensors: dict[str, np.ndarray], builder: str) -> list[np.ndarray]:
    """The weights of `build`, in its order, out of the tensors of a PyTorch state dict as
    ``efficientnet_lite_pytorch`` names them.

    Raises:
        ValueError: a tensor is missing or of another shape.
    """
    arrays = []
    for convolution, norm in _convolutions(builder):
        try:
            kernel = tensors[f"{convolution}.weight"]
            parts = ("weight", "bias", "running_mean", "running_var")
            gamma, beta, mean, variance = (tensors[f"{norm}.{part}"] for part in parts)
        except KeyError as error:
            raise ValueError(f"not {builder}: it has no tensor {error}") from None
        if kernel.ndim != 4 or any(
            a.shape != kernel.shape[:1] for a in (gamma, beta, mean, variance)
        ):
            raise ValueError(f"not {builder}: {convolution} is of shape {kernel.shape}")
        # Float64, whose root and quotient are the same on every machine: the weights are hashed.
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
        # PyTorch orders a kernel (out, in, height, width), Keras (height, width, in, out), and of a
        # depthwise one (height, width, out, 1).
        axes = (2, 3, 0, 1) if "depthwise" in convolution else (2, 3, 1, 0)
        folded = (kernel * scale[:, None, None, None]).transpose(axes)
        arrays.append(np.ascontiguousarray(folded, np.float32))
        arrays.append((beta - mean * scale).astype(np.float32))
    return arrays


def _convolutions(builder: str) -> Iterator[tuple[str, str]]:
    """PyTorch's name of each convolution and of the batch normalisation after it."""
    yield "_conv_stem", "_bn0"
    for i, block in enumerate(_blocks(builder)):
        if block.expansion != 1:
            yield f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0"
        yield f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"
        yield f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2"
    yield "_conv_head", "_bn1"


def _blocks(builder: str) -> Iterator[Block]:
    width, depth = SCALES[builder]
    for stage, (kernel, stride, expansion, channels, blocks) in enumerate(STAGES, start=1):
        deeper = blocks if stage in (1, len(STAGES)) else math.ceil(blocks * depth)
        for i in range(deeper):
            name = f"block{stage}{chr(ord('a') + i)}"
            first = stride if i == 0 else 1
            yield Block(name, kernel, first, expansion, _eighths(channels * width))


def _eighths(channels: float) -> int:
    """The nearest multiple of 8 that is not below nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
