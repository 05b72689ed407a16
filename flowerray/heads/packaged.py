"""A classifier that `flowerray package` made one ONNX file of, read as data.

Its graph is cut at the names that the package gives: `pixels` to `features` is the base, these to
`probabilities` and `novelty` the head. What else a classifier is lies in its metadata:

flowerray   JSON: what classifier.json says of it, without the names of photographs
evidence    base64 of evidence.parquet, without what tells of single photographs
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowerray.bases.own import onnx_file
from flowerray.bases.own.onnx_graph import FEATURES, PIXELS
from flowerray.errors import FlowerrayError
from flowerray.stores.folder import read, unreadable

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

SUFFIX = ".onnx"
ABOUT, EVIDENCE = "flowerray", "evidence"  # keys of its metadata
BASE = ([PIXELS], [FEATURES])
HEAD = ([FEATURES], ["probabilities", "novelty"])


@dataclass(frozen=True)
class Packaged:
    """The parts of a package: `about` as classifier.json, the bytes of an evidence.parquet, and two
    ONNX graphs, uint8 pixels (n, size, size, 3) to features float16 and these to probabilities and
    novelty."""

    about: dict[str, Any]
    evidence: bytes
    base: bytes
    head: bytes


def is_packaged(path: str) -> bool:
    """Whether a classifier's path is that of a package."""
    return path.endswith(SUFFIX)


def opened(path: str) -> Packaged:
    """The parts of the package at `path`.

    Raises:
        FlowerrayError: there is none, or its graph could do more than compute: it has operators or
            functions of its own, or weights outside of the file.
    """
    model = _model(path)
    found = {one.key: one.value for one in model.metadata_props}
    if ABOUT not in found:
        raise FlowerrayError(f"{path} is no package of a classifier: `flowerray package` makes one")
    _check_plain(model, path)
    try:
        from onnx.utils import Extractor

        about = json.loads(found[ABOUT])
        evidence = base64.b64decode(found[EVIDENCE], validate=True)
        cut = Extractor(model)
        base, head = (cut.extract_model(*ends).SerializeToString() for ends in (BASE, HEAD))
        side, wide = about["base_spec"]["input_size"], len(about["classes"])
        said = [[side, side, 3], about["feature_shape"], [wide]]
    except Exception as error:  # onnx raises nearly anything where a name is missing
        raise FlowerrayError(f"{path} is a damaged package: {_first_line(error)}") from None
    if said != [_shape(model.graph, name) for name in (PIXELS, FEATURES, "probabilities")]:
        raise FlowerrayError(f"{path} is a damaged package: its graph is not what it says it is")
    return Packaged(about, evidence, base, head)


def _model(path: str) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        data = read(path)
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        return onnx.load_from_string(data)
    except (DecodeError, RecursionError):
        raise FlowerrayError(f"{path} is no ONNX file, or a damaged one") from None


def _check_plain(model: ModelProto, path: str) -> None:
    """Refuse what could do more than compute, and what is damaged."""
    import onnx

    try:
        onnx_file.check_operators(model)
        if onnx_file.check_tensors(model):
            raise ValueError("it has weights in other files, which no package has: refused")
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise FlowerrayError(f"{path}: {_first_line(error)}") from None


def _shape(graph: GraphProto, name: str) -> list[int]:
    """The sides of a tensor after the first; none where the graph doesn't tell."""
    for value in (*graph.output, *graph.value_info):
        if value.name == name:
            return [side.dim_value for side in value.type.tensor_type.shape.dim][1:]
    return []


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
