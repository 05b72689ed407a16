"""flowerray labels large piles of photographs by transfer learning, on Ray.

Three jobs, each one call: :func:`extract` turns photographs into features, :func:`train` fits a
classifier's head on them, :func:`label` labels any number of photographs with that classifier.
"""

from __future__ import annotations

import sys

# `python -m` puts the caller's directory first: a random.py there would be taken for Python's.
if (
    sys.argv[:1] == ["-m"]
    and {"flowerray", "flowerray.cli"} & set(sys.orig_argv)
    and not sys.flags.safe_path
):
    sys.path.pop(0)

from types import ModuleType

from flowerray.api import (
    CALLS,
    baseline,
    check,
    evaluate,
    export,
    extract,
    label,
    report,
    run,
    train,
    verify,
)
from flowerray.errors import FlowerrayError, UsageError

__version__ = "0.1.0"
__all__ = [
    "FlowerrayError",
    "UsageError",
    "baseline",
    "check",
    "evaluate",
    "export",
    "extract",
    "label",
    "report",
    "run",
    "train",
    "verify",
]


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Python would put the module flowerray/label.py, once imported, where the call label is.
        if not (name in CALLS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
