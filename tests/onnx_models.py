"""Image encoders as ONNX files, laid out as Optimum exports them; their weights are random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

VIT = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2], "rescale_factor": 1 / 255}
SIDE = 32


def laid_out(directory: Path, model: Any, **config: Any) -> Path:
    """`model` in `directory`, with a preprocessor_config.json: 32x32 squashed, or by `config`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(model.SerializeToString())  # `onnx.save` checks it
    about = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 2,
        "size": {"height": SIDE, "width": SIDE},
        **VIT,
        **config,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(about))
    return directory


def model_of(
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    outputs: dict[str, list[Any]],
    shape: tuple[Any, ...] = ("batch_size", "num_channels", "height", "width"),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> Any:
    inputs = [helper.make_tensor_value_info("pixel_values", kind, shape)]
    made = [helper.make_tensor_value_info(n, kind, shape) for n, shape in outputs.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


class Nodes(list):
    """Nodes with the constants that they take, drawn by a seed."""

    def __init__(self) -> None:
        super().__init__()
        self.constants: dict[str, np.ndarray] = {}
        self.random = np.random.default_rng(0)

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def drawn(self, *shape: int, scale: float = 0.5) -> str:
        return self.constant((self.random.normal(size=shape) * scale).astype(np.float32))

    def add(self, operator: str, *inputs: str, called: str = "", **attributes: Any) -> str:
        name = called or f"{operator}_{len(self)}"
        self.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name


def vgg16(arrays: list[np.ndarray], opset: int = 17) -> Any:
    """VGG16 of the weights that ``flowerray.bases.weights.load`` gives."""
    nodes, x, pairs = Nodes(), "pixel_values", iter(zip(arrays[::2], arrays[1::2], strict=True))
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            kernel, bias = next(pairs)
            kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            both = nodes.constant(kernel), nodes.constant(bias)
            x = nodes.add("Conv", x, *both, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            x = nodes.add("Relu", x)
        x = nodes.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = nodes.add("Identity", x, called="last_hidden_state")
    return model_of(nodes, nodes.constants, {x: ["batch_size", 512, "h", "w"]}, opset=opset)


VGG16_PIXELS = {
    "size": {"height": 224, "width": 224},
    "do_rescale": False,
    "do_flip_channel_order": True,
    "image_mean": [103.939, 116.779, 123.68],
    "image_std": [1, 1, 1],
}


def vision_transformer(class_token: bool = True, width: int = 16, patch: int = 8) -> Any:
    """Two blocks of a ViT on 32x32 pixels: `last_hidden_state` (n, 16 or 17, 16) and
    `pooler_output` (n, 16)."""
    nodes = Nodes()
    kernel = nodes.drawn(width, 3, patch, patch, scale=0.1)
    x = nodes.add("Conv", "pixel_values", kernel, strides=[patch, patch])
    x = nodes.add("Reshape", x, nodes.constant(np.array([0, width, -1])))
    x = nodes.add("Transpose", x, perm=[0, 2, 1])
    tokens = (SIDE // patch) ** 2
    if class_token:
        batch = nodes.add("Shape", "pixel_values", end=1)
        shape = nodes.add("Concat", batch, nodes.constant(np.array([1, width])), axis=0)
        token = nodes.add("Expand", nodes.drawn(1, 1, width), shape)
        x, tokens = nodes.add("Concat", token, x, axis=1), tokens + 1
    x = nodes.add("Add", x, nodes.drawn(1, tokens, width))
    for _ in range(2):
        y = _normalised(nodes, x, width)
        query, key, value = (nodes.add("MatMul", y, nodes.drawn(width, width)) for _ in range(3))
        scores = nodes.add("MatMul", query, nodes.add("Transpose", key, perm=[0, 2, 1]))
        scores = nodes.add("Mul", scores, nodes.constant(np.float32(width**-0.5)))
        y = nodes.add("MatMul", nodes.add("Softmax", scores, axis=-1), value)
        x = nodes.add("Add", x, y)
        y = nodes.add("MatMul", _normalised(nodes, x, width), nodes.drawn(width, 4 * width))
        y = nodes.add("MatMul", nodes.add("Tanh", y), nodes.drawn(4 * width, width))
        x = nodes.add("Add", x, y)
    x = nodes.add("Identity", _normalised(nodes, x, width), called="last_hidden_state")
    first = nodes.add("Gather", x, nodes.constant(np.array(0)), axis=1)
    first = nodes.add("MatMul", first, nodes.drawn(width, width))
    nodes.add("Tanh", first, called="pooler_output")
    outputs = {"last_hidden_state": ["batch_size", "tokens", width]}
    outputs["pooler_output"] = ["batch_size", width]
    return model_of(nodes, nodes.constants, outputs)


def _normalised(nodes: Nodes, x: str, width: int) -> str:
    ones, zeros = nodes.constant(np.ones(width, np.float32)), nodes.constant(np.zeros(width, "f4"))
    return nodes.add("LayerNormalization", x, ones, zeros, axis=-1)


def convolutional(
    channels_last: bool = False,
    batch: Any = "batch_size",
    side: Any = SIDE,
    opset: int = 17,
    half: bool = False,
) -> Any:
    """One convolution and ReLU: a map of 8x8 places, 12 wide, in the layout of the pixels."""
    nodes, x = Nodes(), "pixel_values"
    if channels_last:
        x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    x = nodes.add("Relu", nodes.add("Conv", x, nodes.drawn(12, 3, 4, 4, scale=0.1), strides=[4, 4]))
    if channels_last:
        x = nodes.add("Transpose", x, perm=[0, 2, 3, 1])
    nodes.add("Identity", x, called="features_map")
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    constants = nodes.constants
    if half:
        constants = {name: array.astype(np.float16) for name, array in constants.items()}
    shape = (batch, side, side, 3) if channels_last else (batch, 3, side, side)
    made = {"features_map": [batch, 8, 8, 12] if channels_last else [batch, 12, 8, 8]}
    return model_of(nodes, constants, made, shape, opset, kind)
