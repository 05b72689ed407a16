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
from onnx import (
    ModelProto,
    TensorProto,
    checker,
    compose,
    helper,
    inliner,
    parser,
    shape_inference,
    version_converter,
)

from flowerray.bases.engines.onnxruntime import fixed_batch, in_batches, session
from flowerray.bases.hardware import available_cpus
from flowerray.bases.own.onnx_file import MOST_BYTES
from flowerray.bases.own.onnx_graph import FEATURES, PIXELS
from flowerray.bases.prepared import LARGEST_FLOAT16
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError, UsageError
from flowerray.version import __version__

OPSET = 18  # the first whose Resize has antialiasing
# Pillow's filters as ONNX has them; what comes out is Pillow's but for a rounding, so that on noise
# less than one value in a hundred is off, by one. What lies outside of the picture must count for
# nothing, or its edges would be dark.
FILTERS = {
    "nearest": 'mode = "nearest", nearest_mode = "round_prefer_ceil"',
    "bilinear": 'mode = "linear", antialias = 1, exclude_outside = 1',
    "bicubic": 'mode = "cubic", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5',
}
SQUASHED = """
resize (uint8[{n}, height, width, 3] photographs) => (uint8[{n}, {size}, {size}, 3] pixels)
<int64[2] sides = {{{size}, {size}}}> {{
    pixels = Resize<axes = [1, 2], {how}>(photographs, "", "", sides)
}}"""
CROPPED = """
resize (uint8[{n}, height, width, 3] photographs) => (uint8[{n}, {size}, {size}, 3] pixels)
<int64 crop = {{{crop}}}, int64 size = {{{size}}}, int64 two = {{2}}, int64[2] axes = {{1, 2}}> {{
    given = Shape<start = 1, end = 3>(photographs)
    shorter = ReduceMin<keepdims = 0>(given)
    longer = Mul(given, crop)
    sides = Div(longer, shorter)
    whole = Resize<axes = [1, 2], {how}>(photographs, "", "", sides)
    rest = Sub(sides, size)
    starts = Div(rest, two)
    ends = Add(starts, size)
    pixels = Slice(whole, starts, ends, axes)
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
named (float[{n}, {classes}] found, float[{n}] far)
    => (float[{n}, {classes}] probabilities, float[{n}] novelty)
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
        FlowerrayError: it is larger than an ONNX file may be, or needs what ONNX lacks.
    """

    def __init__(self, base: bytes, head: bytes, spec: BaseSpec, release: int) -> None:
        try:
            self.graph = composed(base, head, spec)
        except (ValueError, checker.ValidationError, shape_inference.InferenceError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise FlowerrayError(f"{spec.base} can't be packaged: {reason}") from None
        self.graph.producer_name, self.graph.producer_version = "flowerray", __version__
        self.graph.model_version = release
        self.kind = f"ONNX, opset {_opset(self.graph)}"
        self._session: Any = None

    def probabilities(self, photographs: np.ndarray) -> np.ndarray:
        """See ``flowerray.packages.Package``."""
        if self._session is None:
            self._session = session(self.graph.SerializeToString(), available_cpus())
        batch = fixed_batch(self._session.get_inputs()[0].shape)
        return in_batches(self._run, photographs, batch)

    def _run(self, photographs: np.ndarray) -> np.ndarray:
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
        FlowerrayError: it is larger than an ONNX file may be, or needs what ONNX lacks.
    """
    if len(base) + len(head) > MOST_BYTES:
        raise FlowerrayError("base and head are more than 2 GB, which no ONNX file can be")
    models = [onnx.load_from_string(base), onnx.load_from_string(head)]
    opset = max(OPSET, *map(_opset, models))
    ir_version = max(model.ir_version for model in models)
    own = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    batch, *_ = _sides(models[0].graph.input[0])
    _, *shape = _sides(models[1].graph.input[0])
    _, classes = _sides(models[1].graph.output[0])
    (computed,) = models[0].graph.output  # which may say no shape
    computed.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [batch, *shape]))
    texts = (
        resize(spec, batch),
        AS_STORED.format(shape=", ".join(map(str, [batch, *shape])), largest=LARGEST_FLOAT16),
        NAMED.format(n=batch, classes=classes),
    )
    first, as_stored, named = (parser.parse_model(own + text) for text in texts)
    base_model, head_model = (
        _joinable(model, prefix, opset, ir_version)
        for model, prefix in zip(models, ("base/", "head/"), strict=True)
    )
    whole = reduce(_behind, (first, base_model, as_stored, head_model, named))
    if not any(value.name == PIXELS for value in whole.graph.value_info):
        whole.graph.value_info.append(first.graph.output[0])
    outputs = {one.name: one for one in whole.graph.output}
    del whole.graph.output[:]
    whole.graph.output.extend(outputs[name] for name in ("probabilities", "novelty", FEATURES))
    checker.check_model(whole, full_check=True)
    return whole


def filter_of(spec: BaseSpec) -> str:
    """How ONNX's Resize makes the pixels that `spec` wants.

    Raises:
        FlowerrayError: it can't.
    """
    name = spec.resize.removesuffix("-dct")
    if name not in FILTERS:
        raise FlowerrayError(f"{spec.base} takes pixels resized by {name}: no format has that")
    return FILTERS[name]


def check_squashed(spec: BaseSpec, format: str) -> None:
    """
    Raises:
        UsageError: pixels are the middle of a photograph, which `format` has no way to cut out.
    """
    if spec.crop is not None:
        raise UsageError(
            f"{spec.base} takes the middle of photographs, which --format {format} can't cut out: "
            "--format onnx does"
        )


def resize(spec: BaseSpec, batch: object) -> str:
    """ONNX's text of the graph from photographs, `batch` of them, to pixels as
    ``flowerray.sources.photographs.decode`` makes them; raises as `filter_of`."""
    text = SQUASHED if spec.crop is None else CROPPED
    return text.format(n=batch, size=spec.input_size, crop=spec.crop, how=filter_of(spec))


def _joinable(model: ModelProto, prefix: str, opset: int, ir_version: int) -> ModelProto:
    """`model` at these versions, each of its names behind `prefix`, its functions inlined.

    Raises:
        FlowerrayError: an operator of it can't be brought there.
    """
    model = inliner.inline_local_functions(model) if model.functions else model
    if _opset(model) != opset:
        try:
            model = version_converter.convert_version(model, opset)
        except Exception as error:  # of a C++ library
            reason = str(error).strip().partition("\n")[0]
            raise FlowerrayError(
                f"the base has opset {_opset(model)} and can't be brought to {opset}: export it "
                f"with that one ({reason})"
            ) from None
    del model.opset_import[:]  # exporters name domains that they don't use
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = ir_version
    return compose.add_prefix(model, prefix)


def _behind(first: ModelProto, then: ModelProto) -> ModelProto:
    """`then` on the outputs of `first`; features stay an output."""
    ends = [output.name for output in first.graph.output if output.name != FEATURES]
    starts = [one.name for one in then.graph.input]
    return compose.merge_models(first, then, list(zip(ends, starts, strict=True)))


def _opset(model: ModelProto) -> int:
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def _sides(value: onnx.ValueInfoProto) -> list[Any]:
    """A tensor's shape; "n" for what varies."""
    return [side.dim_value or "n" for side in value.type.tensor_type.shape.dim]
