"""The prepared base: all that an actor needs to compute with a base, made in one place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowerray.bases.engines import Engine
from flowerray.bases.spec import BaseSpec


@dataclass(frozen=True)
class PreparedBase:
    """A base whose precision and engine are decided: its spec, and the `model` that its engine
    opens, which is the weights, or what OpenVINO made of them with a head behind it. `head` is a
    ``head.keras`` for another engine to put behind the base."""

    spec: BaseSpec
    model: list[np.ndarray]
    head: bytes | None = None

    def open(self, threads: int) -> Engine:
        """The engine that the spec names, computing on so many CPU threads."""
        if self.spec.engine == "openvino":
            from flowerray.bases.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(self.spec, self.model, threads)
        from flowerray.bases.engines.keras import KerasEngine

        return KerasEngine(self.spec, self.model, threads, self.head)
