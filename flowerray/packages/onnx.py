"""The ONNX graph of a package: photographs are resized, prepared, computed and judged.

photographs ▸ resize ▸ pixels ▸ base ▸ as stored ▸ features ▸ head ▸ probabilities, novelty

`pixels` and `features` are names in the graph: flowerray runs the base and the head between them
apart (see ``flowerray.heads.packaged``).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, compose, helper, parser

from flowerray.bases.engines.onnxruntime import session
from flowerray.bases.hardware import available_cpus
from flowerray.bases.prepared import LARGEST_FLOAT16
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.version import __version__

MOST_BYTES = 2**31 - 1  # that protobuf holds
# As Pillow's, but for one rounding: on noise less than one value in a hundred is off, by one.
# What lies outside of the picture must count for nothing, or its edges would be dark.
LINEAR = 'mode = "linear", antialias = 1, exclude_outside = 1'
NEAREST = 'mode = "nearest", nearest_mode = "round_prefer_ceil"'
RESIZE = """
resize (uint8[n, height, width, 3] photographs) => (uint8[n, {size}, {size}, 3] pixels)
<int64[2] sides = {{{size}, {size}}}> {{
    pixels = Resize<axes = [1, 2], {how}>(photographs, "", "", sides)
}}"""
# See flowerray.bases.prepared.as_stored.
AS_STORED = """
as_stored (float[{shape}] computed) => (float16[{shape}] features, float[{shape}] to_head)
<float low = {{-{largest}}}, float high = {{{largest}}}> {{
    clipped = Clip(computed, low, high)
    features = Cast<to = 10>(clipped)
    to_head = Cast<to = 1>(features)
}}"""
NAMED = """
named (float[n, {classes}] found, float[n] far)
    => (float[n, {classes}] probabilities, float[n] novelty)
{{
    probabilities = Identity(found)
    novelty = Identity(far)
}}"""


class OnnxPackage:
    """One ``.onnx`` file, for ONNX Runtime and all that reads ONNX.

    Args:
        base: ONNX, its one input uint8 pixels (n, size, size, 3), its one output float32 features.
        head: ONNX, its one input float32 features, its outputs probabilities and novelty.
        release: becomes the file's `model_version`.

    Raises:
        FlowerrayError: it is larger than an ONNX file may be.
    """

    def __init__(self, base: bytes, head: bytes, spec: BaseSpec, release: int) -> None:
        self.graph = composed(base, head, spec)
        self.graph.producer_name, self.graph.producer_version = "flowerray", __version__
        self.graph.model_version = release
        self._session: Any = None

    def probabilities(self, photographs: np.ndarray) -> np.ndarray:
        """See ``flowerray.packages.Package``."""
        if self._session is None:
            self._session = session(self.graph.SerializeToString(), available_cpus())
        (found,) = self._session.run(["probabilities"], {"photographs": photographs})
        return np.asarray(found)

    def files(self, metadata: dict[str, str]) -> list[bytes]:
        """See ``flowerray.packages.Package``."""
        helper.set_model_props(self.graph, metadata)
        return [self.graph.SerializeToString()]


def composed(base: bytes, head: bytes, spec: BaseSpec) -> ModelProto:
    """One graph: photographs uint8 (n, h, w, 3) to probabilities float32 (n, classes), novelty
    float32 (n,) and features float16 (n, *feature_shape).

    Raises:
        FlowerrayError: it is larger than an ONNX file may be.
    """
    if len(base) + len(head) > MOST_BYTES:
        raise FlowerrayError(f"the base is larger than the {MOST_BYTES:,} bytes of an ONNX file")
    models = [onnx.load_from_string(base), onnx.load_from_string(head)]
    opset, ir_version = max(map(_opset, models)), max(model.ir_version for model in models)
    own = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    how = NEAREST if spec.resize == "nearest" else LINEAR
    shape = ", ".join(["n", *map(str, _shape(models[1].graph.input[0]))])
    classes, *_ = _shape(models[1].graph.output[0])
    middle = [_joinable(m, f"{n}/", opset) for m, n in zip(models, ("base", "head"), strict=True)]
    for model in middle:
        model.ir_version = ir_version
    texts = (
        RESIZE.format(size=spec.input_size, how=how),
        AS_STORED.format(shape=shape, largest=LARGEST_FLOAT16),
        NAMED.format(classes=classes),
    )
    resize, as_stored, named = (parser.parse_model(own + text) for text in texts)
    whole = reduce(_behind, (resize, middle[0], as_stored, middle[1], named))
    if not any(value.name == "pixels" for value in whole.graph.value_info):
        whole.graph.value_info.append(resize.graph.output[0])
    outputs = {one.name: one for one in whole.graph.output}
    del whole.graph.output[:]
    whole.graph.output.extend(outputs[name] for name in ("probabilities", "novelty", "features"))
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _joinable(model: ModelProto, prefix: str, opset: int) -> ModelProto:
    """`model` at `opset`, each of its names behind `prefix`."""
    if _opset(model) != opset:
        model = onnx.version_converter.convert_version(model, opset)
    del model.opset_import[:]  # tf2onnx names domains that it doesn't use
    model.opset_import.append(helper.make_opsetid("", opset))
    return compose.add_prefix(model, prefix)


def _behind(first: ModelProto, then: ModelProto) -> ModelProto:
    """`then` on the outputs of `first`; features stay an output."""
    ends = [output.name for output in first.graph.output if output.name != "features"]
    starts = [one.name for one in then.graph.input]
    return compose.merge_models(first, then, list(zip(ends, starts, strict=True)))


def _opset(model: ModelProto) -> int:
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """The sides of a tensor after the first."""
    return [side.dim_value for side in value.type.tensor_type.shape.dim[1:]]
