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
    CheckSettings,
    ExportSettings,
    ExtractSettings,
    LabelSettings,
    ReportSettings,
    TrainSettings,
)

if TYPE_CHECKING:
    from flowerray.baseline import baseline as baseline
    from flowerray.check import check as check
    from flowerray.evaluate import evaluate as evaluate
    from flowerray.export import export as export
    from flowerray.extract import extract as extract
    from flowerray.label import label as label
    from flowerray.report import report as report
    from flowerray.train import train as train

__version__ = "0.1.0"
__all__ = [
    "BaselineSettings",
    "CheckSettings",
    "ExportSettings",
    "ExtractSettings",
    "FlowerrayError",
    "LabelSettings",
    "ReportSettings",
    "TrainSettings",
    "UsageError",
    "baseline",
    "check",
    "evaluate",
    "export",
    "extract",
    "label",
    "report",
    "train",
]

_CALLS = ("baseline", "check", "evaluate", "export", "extract", "label", "report", "train")


def __getattr__(name: str) -> object:
    # The jobs import Ray and Arrow; `import flowerray` alone stays instant.
    if name in _CALLS:
        # All at once: loading a module puts it where its function is to be.
        modules = {call: import_module(f"flowerray.{call}") for call in _CALLS}
        globals().update({call: getattr(module, call) for call, module in modules.items()})
        return globals()[name]
    raise AttributeError(f"module 'flowerray' has no attribute {name!r}")
