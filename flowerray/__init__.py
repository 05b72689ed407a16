"""flowerray labels large piles of photographs by transfer learning, on Ray.

Three jobs, each one call: :func:`extract` turns photographs into features, :func:`train` fits a
classifier's head on them, :func:`label` labels any number of photographs with that classifier.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flowerray.errors import FlowerrayError, UsageError
from flowerray.settings import CheckSettings, ExtractSettings, LabelSettings, TrainSettings

if TYPE_CHECKING:
    from flowerray.check import check as check
    from flowerray.evaluate import evaluate as evaluate
    from flowerray.extract import extract as extract
    from flowerray.label import label as label
    from flowerray.train import train as train

__version__ = "0.1.0"
__all__ = [
    "CheckSettings",
    "ExtractSettings",
    "FlowerrayError",
    "LabelSettings",
    "TrainSettings",
    "UsageError",
    "check",
    "evaluate",
    "extract",
    "label",
    "train",
]

_CALLS = ("check", "evaluate", "extract", "label", "train")


def __getattr__(name: str) -> object:
    # The jobs import Ray and Arrow; `import flowerray` alone stays instant.
    if name in _CALLS:
        return getattr(import_module(f"flowerray.{name}"), name)
    raise AttributeError(f"module 'flowerray' has no attribute {name!r}")
