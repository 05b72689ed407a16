"""What OpenVINO makes of a base or a head, once: kept in the cache beside the weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flowerray.bases.engines import openvino
from flowerray.bases.spec import BaseSpec, fingerprint_of
from flowerray.bases.weights import Weights, cache_directory
from flowerray.errors import FlowerrayError
from flowerray.pipeline import tasks
from flowerray.progress import say
from flowerray.stores.folder import whole_file

Converted = list[np.ndarray]  # graph and constants, both uint8
Run = Callable[..., Converted]  # how a task is run that converts
HEADS_KEPT = 32  # those used last, of 0.3 to 50 MB each; another is converted again when it is used


def here(task: Callable[..., Converted], *arguments: Any) -> Converted:
    """Run what converts in this process, which TensorFlow then stays in."""
    return task(*arguments)


def base(spec: BaseSpec, weights: Weights, run: Run | None = None) -> Converted:
    """The base of `spec`, which computes in float32 or bfloat16 alike."""
    makes_none = ("precision", "resize", "engine", "colour", "crop")
    makes = {k: v for k, v in asdict(spec).items() if k not in makes_none}

    def convert() -> Converted:
        say(f"{spec.base}: converting it for OpenVINO, this once")
        return (run or tasks.run_once)(openvino.convert, spec, weights.arrays, None)

    return _cached(spec.base, fingerprint_of(makes), convert)


def head(head: bytes, run: Run | None = None) -> Converted:
    """A ``head.keras``: features to probabilities."""
    return _cached(
        "head", _made(head), lambda: (run or tasks.run_once)(openvino.convert_head, head)
    )


def keep_head(head: bytes, converted: Converted) -> None:
    """Have `head` find what the trainer converted, or the first job to label with this head would
    import TensorFlow for it alone."""
    _keep(_file("head", _made(head)), converted)


def pack(converted: Converted) -> bytes:
    """As the bytes of a file."""
    stream = io.BytesIO()
    np.savez(stream, graph=converted[0], constants=converted[1])
    return stream.getvalue()


def unpack(data: bytes) -> Converted:
    """The inverse of `pack`.

    Raises:
        ValueError: it isn't that.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return [arrays["graph"], arrays["constants"]]
    except (KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from None


def _cached(name: str, makes: str, convert: Callable[[], Converted]) -> Converted:
    file = _file(name, makes)
    try:
        converted = unpack(file.read_bytes())
    except (OSError, ValueError):
        converted = convert()
        _keep(file, converted)
    else:
        with suppress(OSError):  # a cache may be shared and read-only
            os.utime(file)
    return converted


def _made(head: bytes) -> str:
    return fingerprint_of(hashlib.sha256(head).hexdigest())


def _file(name: str, makes: str) -> Path:
    version = importlib.metadata.version("openvino")
    return cache_directory() / "openvino" / f"{name}-{makes}-{version}.npz"


def _keep(file: Path, converted: Converted) -> None:
    """Where the cache can't be written, that is all that is lost."""
    # OSError: another job may be removing the same.
    with suppress(FlowerrayError, OSError):
        with whole_file(file) as stream:
            stream.write(pack(converted))
        heads = [(other.stat().st_mtime_ns, other) for other in file.parent.glob("head-*.npz")]
        for _, unused in sorted(heads, reverse=True)[HEADS_KEPT:]:
            unused.unlink()
