"""An ONNX file as data: read with what lies beside it, and refused before anything computes it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerray.errors import FlowerrayError

MOST_BYTES = 2**31 - 1  # what a protobuf message can hold
FIRST_OPSET = 11
DOMAINS = ("", "ai.onnx")
FLOATS = {1: "float32", 10: "float16"}  # TensorProto's numbers
EXPORT = "export the image encoder alone, for example by `optimum-cli export onnx`"


@dataclass(frozen=True)
class OnnxFile:
    """A checked image encoder: its `model` (an ``onnx.ModelProto`` with all tensors inside), the
    SHA-256 of its files, where its `external` data lay beside it, and what it takes: the input's
    name, `channels_first`, the batch and the side where these are fixed, whether it is of float16;
    the names of its outputs."""

    model: Any
    sha256: str
    external: tuple[str, ...]
    input: str
    channels_first: bool
    batch: int | None
    side: int | None
    half: bool
    outputs: tuple[str, ...]


def read(file: Path) -> OnnxFile:
    """The encoder in `file`, with the external data that lies beside it.

    Raises:
        FlowerrayError: it is none, or a damaged or a dangerous one; nothing of it was computed.
    """
    try:
        if not file.is_file():
            raise ValueError("no file")
        if file.stat().st_size > MOST_BYTES:
            raise ValueError("more than 2 GB, which no ONNX file can be")
        return parsed(file.read_bytes(), file)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise FlowerrayError(f"{file}: {reason}") from None


def parsed(data: bytes, file: Path | None = None) -> OnnxFile:
    """The encoder in `data`, which are those of `file`.

    Raises:
        ValueError: as `read`.
    """
    import onnx
    from google.protobuf.message import DecodeError

    digest = hashlib.sha256(data)
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, RecursionError):
        raise ValueError("no ONNX file, or a damaged one") from None
    if not model.graph.node or not model.graph.output:
        raise ValueError("no ONNX file: it has no graph")
    _check_operators(model)
    external = _check_tensors(model)
    beside = _take_in(external, file)
    for one in beside.values():
        with open(one, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    outputs = tuple(one.name for one in model.graph.output)
    return OnnxFile(model, digest.hexdigest(), tuple(beside), **_input(model), outputs=outputs)


def _check_tensors(model: Any) -> list[Any]:
    """Those whose data lie elsewhere; all of them together declare no more than can be."""
    import onnx

    declared, external = 0, []
    for tensor in _tensors(model):
        size = _declared_bytes(tensor)
        declared += size
        if declared > MOST_BYTES:
            raise ValueError("more than 2 GB of weights are declared, which is the limit")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external.append(tensor)
        elif size > 8 * tensor.ByteSize():  # 8: a zero takes one byte of eight
            raise ValueError(f"the tensor {tensor.name!r} is not all there: a damaged file")
    return external


def _check_operators(model: Any) -> None:
    """Only the standard's: another's would need code that isn't in the file."""
    versions = {one.domain: one.version for one in model.opset_import}
    if (opset := versions.get("", versions.get("ai.onnx", 0))) < FIRST_OPSET:
        raise ValueError(f"opset {opset}: export it with opset {FIRST_OPSET} or later")
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
            raise ValueError(
                f"it has the custom operator {node.domain}.{node.op_type}, which could be any "
                "code: export it with standard operators alone"
            )


def _nodes(model: Any) -> Iterator[Any]:
    pending = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else []
                pending += attribute.graphs


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor in `model`, at any depth."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        pending += [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
        pending += [g for n in graph.node for a in n.attribute for g in a.graphs]
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _declared_bytes(tensor: Any) -> int:
    import onnx

    if any(side < 0 for side in tensor.dims):
        raise ValueError(f"the tensor {tensor.name!r} has a negative side: a damaged file")
    if tensor.data_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 0
    try:
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"the tensor {tensor.name!r} is of no known type") from None
    # Of types of four bits two are in a byte.
    return math.prod(tensor.dims) * itemsize // (2 if tensor.data_type in _FOUR_BITS else 1)


_FOUR_BITS = (21, 22, 23)  # UINT4, INT4, FLOAT4E2M1


def _take_in(tensors: list[Any], file: Path | None) -> dict[str, Path]:
    """Put the external data of `tensors` into them; the files that it was in, by where the model
    says they are.

    Raises:
        ValueError: a file isn't beside the model, or is too short.
    """
    import onnx

    files: dict[str, Path] = {}
    for tensor in tensors:
        entries = {one.key: one.value for one in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            if file is None:
                raise ValueError("its external data are elsewhere")
            files[location] = _beside(file, location)
        beside, size = files[location], files[location].stat().st_size
        offset = entries.get("offset", "0")
        length = entries.get("length", str(_declared_bytes(tensor)))
        if not (offset.isdecimal() and length.isdecimal()):
            raise ValueError(f"external data of {tensor.name!r}: no offset and length")
        if int(length) != _declared_bytes(tensor) or int(offset) + int(length) > size:
            raise ValueError(
                f"external data of {tensor.name!r} is not all in {beside.name}: fetch it again"
            )
        with open(beside, "rb") as stream:
            stream.seek(int(offset))
            tensor.raw_data = stream.read(int(length))
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    return files


def _beside(file: Path, location: str) -> Path:
    """The file of external data at `location`, which must lie where the model does.

    In a Hugging Face cache both are links to the `blobs` beside the model's `snapshots`.
    """
    outside = ValueError(f"external data {location!r} is not beside it: refused")
    relative = Path(location)
    if not location or relative.is_absolute() or ".." in relative.parts or "\0" in location:
        raise outside
    beside = (file.parent / relative).resolve()
    allowed = [file.parent.resolve()]
    if "snapshots" in file.absolute().parts:
        cache = next(p for p in file.absolute().parents if p.name == "snapshots")
        allowed.append(cache.parent.resolve() / "blobs")
    if not any(beside.is_relative_to(directory) for directory in allowed):
        raise outside
    if not beside.is_file():
        raise ValueError(f"its external data {location!r} is missing: fetch it too")
    return beside


def _input(model: Any) -> dict[str, Any]:
    inside = {tensor.name for tensor in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in inside]
    names = ", ".join(one.name for one in inputs) or "nothing"
    if len(inputs) != 1:
        raise ValueError(f"it takes {names}, not photographs alone: {EXPORT}")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in FLOATS:
        raise ValueError(f"its input {names} is not of float32 or float16: {EXPORT}")
    sides = [one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim]
    shown = "x".join(str(side or "?") for side in sides)
    if len(sides) != 4:
        raise ValueError(
            f"its input {names} is {shown or 'of any shape'}, no photographs: {EXPORT}"
        )
    # Where no side says which are the channels, exporters of PyTorch's models put them first.
    first = sides[1] == 3 or sides[3] != 3
    batch, *rest = sides
    channels, high, wide = rest if first else (rest[2], *rest[:2])
    if channels not in (None, 3):
        raise ValueError(f"its input {names} is {shown}, no photographs of three colours")
    if high != wide:
        raise ValueError(f"its input {names} is {shown}, no squares: flowerray makes squares alone")
    return {
        "input": names,
        "channels_first": first,
        "batch": batch or None,
        "side": high or None,
        "half": FLOATS[kind.elem_type] == "float16",
    }
