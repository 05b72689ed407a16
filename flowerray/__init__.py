"""flowerray labels large piles of photographs by transfer learning, on Ray.

Three jobs, each one call: :func:`extract` turns photographs into features, :func:`train` fits a
classifier's head on them, :func:`label` labels any number of photographs with that classifier.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flowerray.errors import FlowerrayError, UsageError
from flowerray.settings import (
    BaselineSettings,
    ExportSettings,
    ExtractSettings,
    LabelSettings,
    TrainSettings,
)

if TYPE_CHECKING:
    from flowerray.baseline import baseline as baseline
    from flowerray.evaluate import evaluate as evaluate
    from flowerray.export import export as export
    from flowerray.extract import extract as extract
    from flowerray.label import label as label
    from flowerray.train import train as train

__version__ = "0.1.0"
__all__ = [
    "BaselineSettings",
    "ExportSettings",
    "ExtractSettings",
    "FlowerrayError",
    "LabelSettings",
    "TrainSettings",
    "UsageError",
    "baseline",
    "evaluate",
    "export",
    "extract",
    "label",
    "train",
]

_CALLS = ("baseline", "evaluate", "export", "extract", "label", "train")


def __getattr__(name: str) -> object:
    # The jobs import Ray and Arrow; `import flowerray` alone stays instant.
    if name in _CALLS:
        return getattr(import_module(f"flowerray.{name}"), name)
    raise AttributeError(f"module 'flowerray' has no attribute {name!r}")
