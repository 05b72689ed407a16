"""From an encoder's ONNX graph to one that makes features of pixels, as the base spec says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowerray.bases.own import onnx_file
from flowerray.bases.own.onnx_file import OnnxFile
from flowerray.bases.spec import BaseSpec
from flowerray.errors import UsageError

PIXELS, FEATURES = "pixels", "features"
OWN = "flowerray"  # begins the name of each tensor that is added


def graph_of(spec: BaseSpec, weights: list[np.ndarray]) -> Any:
    """The ``onnx.ModelProto`` of `spec`, whose encoder is in `weights` as bytes: `pixels` uint8
    (n, size, size, 3) to `features` float32 (n, *shape), n being any number, or the encoder's own
    where that is fixed.

    Raises:
        UsageError: the encoder has no output of the spec's `layer`, or its `pool` needs another.
    """
    import onnx

    assert spec.own is not None
    encoder, rank = onnx_file.parsed(weights[0].tobytes()), spec.own.rank
    output = output_named(encoder, spec.layer)
    graph = _Graph(encoder.model)
    x = PIXELS
    if spec.own.bgr:
        x = graph.add("Gather", [x, graph.constant(np.array([2, 1, 0]))], axis=3)
    x = graph.add("Cast", [x], to=onnx.TensorProto.FLOAT)
    x = graph.add("Mul", [x, graph.constant(np.array(spec.own.scale, np.float32))])
    x = graph.add("Add", [x, graph.constant(np.array(spec.own.offset, np.float32))])
    if encoder.channels_first:
        x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    kind = onnx.TensorProto.FLOAT16 if encoder.half else onnx.TensorProto.FLOAT
    graph.add("Cast", [x], to=kind, called=encoder.input)
    before, graph.nodes = graph.nodes, []
    x = graph.add("Cast", [output], to=onnx.TensorProto.FLOAT)
    if rank == 4 and encoder.channels_first:
        x = graph.add("Transpose", [x], perm=[0, 2, 3, 1])
    x = _pooled(graph, x, spec, rank)
    graph.add("Identity", [x], called=FEATURES)
    model, size = encoder.model, spec.input_size
    nodes = [*before, *model.graph.node, *graph.nodes]
    for field in ("node", "input", "output", "value_info"):
        model.graph.ClearField(field)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.constants)
    batch = encoder.batch or "n"
    inputs = onnx.helper.make_tensor_value_info(
        PIXELS, onnx.TensorProto.UINT8, [batch, size, size, 3]
    )
    model.graph.input.append(inputs)
    unshaped = onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None)
    model.graph.output.append(unshaped)
    model.ir_version = max(model.ir_version, 4)  # from then on constants are no inputs
    return model


def output_named(encoder: OnnxFile, name: str | None) -> str:
    """The encoder's output of that name; its first where none is named.

    Raises:
        UsageError: it has none.
    """
    if name is None:
        return encoder.outputs[0]
    if name not in encoder.outputs:
        raise UsageError(
            f"the base has no output {name!r}: give --layer one of {', '.join(encoder.outputs)}"
        )
    return name


def check_pool(pool: str | None, rank: int) -> None:
    """
    Raises:
        UsageError: of an output of this rank `pool` can make nothing.
    """
    if pool == "cls" and rank != 3:
        raise UsageError("--pool cls is of tokens, which this base's output is not: leave it out")
    if pool == "avg" and rank == 2:
        raise UsageError("--pool avg: this base's output is one vector already: leave it out")


def _pooled(graph: _Graph, x: str, spec: BaseSpec, rank: int) -> str:
    """What the spec's `pool` makes of features `x`, channels last; an embedding as
    ``flowerray.bases.engines.keras.embedding`` makes it of a map. Tokens and vectors are compared
    by their angle where they are published, so they are only brought to unit length."""
    check_pool(spec.pool, rank)
    assert spec.own is not None
    way = spec.own.tokens if spec.pool == "embedding" and rank == 3 else spec.pool
    if spec.pool == "embedding" and rank == 4:
        size = graph.add("Abs", [x])
        there = graph.add("Greater", [size, graph.constant(np.float32(0))])
        active = graph.sum(graph.add("Cast", [there], to=1), [1, 2, 3])
        active = graph.add("Max", [active, graph.constant(np.float32(1))])
        unit = graph.add("Div", [graph.sum(size, [1, 2, 3]), active])
        unit = graph.add("Max", [unit, graph.constant(np.float32(1e-12))])
        x = graph.add("Div", [x, graph.add("Add", [size, unit])])
        way = "avg"
    if way == "avg":
        x = graph.add("ReduceMean", [x], axes=[1, 2] if rank == 4 else [1], keepdims=0)
    if way == "cls":
        x = graph.add("Gather", [x, graph.constant(np.array(0))], axis=1)
    if spec.pool == "embedding":
        square = graph.sum(graph.add("Mul", [x, x]), [1])
        length = graph.add("Sqrt", [graph.add("Max", [square, graph.constant(np.float32(1e-12))])])
        x = graph.add("Div", [x, length])
    return x


class _Graph:
    """Nodes and constants to add to a model's graph, in its version of the operators."""

    def __init__(self, model: Any) -> None:
        self.opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._count = 0

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, inputs: list[str], called: str = "", **attributes: Any) -> str:
        """Add a node; its output's name."""
        import onnx

        # Where the axes went from the attributes to the inputs.
        moved = {"ReduceSum": 13, "ReduceMean": 18}.get(operator)
        if moved is not None and self.opset >= moved:
            inputs = [*inputs, self.constant(np.array(attributes.pop("axes")))]
        name = called or self._name(operator)
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def sum(self, x: str, axes: Sequence[int]) -> str:
        return self.add("ReduceSum", [x], axes=list(axes), keepdims=1)

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{OWN}_{what}_{self._count}"
