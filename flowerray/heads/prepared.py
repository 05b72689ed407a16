"""The prepared head: all that an actor needs to put a classifier's head behind its base."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowerray.bases.prepared import Head
from flowerray.heads.dense_head import DenseHead


@dataclass(frozen=True)
class PreparedHead:
    """A head as data: `dense` for numpy where it is such a one; else what OpenVINO made of it, to
    compute in `precision`, a ``head.keras``, or a package's ONNX graph."""

    dense: DenseHead | None = None
    converted: list[np.ndarray] | None = None
    precision: str = "float32"
    keras: bytes = b""
    onnx: bytes = b""

    def open(self, threads: int) -> Head:
        """The head, computing on so many CPU threads."""
        if self.dense is not None:
            return self.dense
        if self.converted is not None:
            from flowerray.bases.engines.openvino import OpenVinoHead

            return OpenVinoHead(self.converted, self.precision, threads)
        if self.onnx:
            from flowerray.bases.engines.onnxruntime import OnnxRuntimeHead

            return OnnxRuntimeHead(self.onnx, threads)
        from flowerray.bases.engines.keras import KerasHead

        return KerasHead(self.keras, threads)
