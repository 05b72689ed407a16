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

from flowerray.api import (
    accept,
    audit,
    baseline,
    check,
    compare,
    evaluate,
    export,
    extract,
    label,
    package,
    report,
    run,
    similar,
    suggest,
    train,
    verify,
)
from flowerray.errors import FlowerrayError, UsageError
from flowerray.version import __version__

__all__ = [
    "FlowerrayError",
    "UsageError",
    "__version__",
    "accept",
    "audit",
    "baseline",
    "check",
    "compare",
    "evaluate",
    "export",
    "extract",
    "label",
    "load",
    "package",
    "report",
    "run",
    "similar",
    "suggest",
    "train",
    "verify",
]


def __getattr__(name: str) -> object:
    if name == "load":  # not before it is asked for: it takes numpy and Arrow with it
        from flowerray.commands.predict import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
