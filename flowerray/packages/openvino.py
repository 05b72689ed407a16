"""A package as OpenVINO's own two files: its graph, .xml, and its constants, .bin."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.utils import Extractor

from flowerray.bases.engines.onnxruntime import in_batches
from flowerray.bases.engines.openvino import import_openvino, serialized
from flowerray.bases.spec import BaseSpec
from flowerray.packages.onnx import check_squashed

RESIZES = {
    "nearest": "RESIZE_NEAREST",
    "bilinear-dct": "RESIZE_BILINEAR_PILLOW",
    "bicubic-dct": "RESIZE_BICUBIC_PILLOW",
}


class OpenVinoPackage:
    """The `graph` of a package (see ``flowerray.packages.onnx``) as OpenVINO's, with the same input
    and outputs. The resize is OpenVINO's own, which is Pillow's.

    Raises:
        UsageError: photographs are to be cropped.
    """

    def __init__(self, graph: ModelProto, spec: BaseSpec) -> None:
        check_squashed(spec, "openvino")
        openvino = import_openvino()
        from openvino.preprocess import PrePostProcessor, ResizeAlgorithm

        outputs = [output.name for output in graph.graph.output]
        behind = Extractor(graph).extract_model(["pixels"], outputs)
        model = openvino.Core().read_model(behind.SerializeToString())
        resized = PrePostProcessor(model)
        pixels, layout = resized.input(), openvino.Layout("NHWC")
        tensor = pixels.tensor().set_element_type(openvino.Type.u8).set_layout(layout)
        tensor.set_spatial_dynamic_shape()
        pixels.model().set_layout(layout)
        pixels.preprocess().resize(getattr(ResizeAlgorithm, RESIZES[spec.resize]))
        self.model = resized.build()
        self.model.input(0).get_tensor().set_names({"photographs"})
        self.kind = f"OpenVINO {version('openvino')}"
        self._compiled: Any = None

    def probabilities(self, photographs: np.ndarray) -> np.ndarray:
        """See ``flowerray.packages.Package``."""
        if self._compiled is None:
            self._compiled = import_openvino().Core().compile_model(self.model, "CPU")
        sides = self.model.input(0).partial_shape[0]
        batch = None if sides.is_dynamic else sides.get_length()
        return in_batches(self._run, photographs, batch)

    def _run(self, photographs: np.ndarray) -> np.ndarray:
        return np.array(self._compiled(photographs)["probabilities"])

    def files(self, metadata: dict[str, str]) -> list[bytes]:
        """See ``flowerray.packages.Package``."""
        for key, value in metadata.items():
            self.model.set_rt_info(value, ["flowerray", key])
        return [array.tobytes() for array in serialized(self.model)]
