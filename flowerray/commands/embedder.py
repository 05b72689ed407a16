"""A base for a few photographs at a time, in this process: no Ray, no output directory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flowerray.bases import hardware
from flowerray.bases import weights as pretrained
from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError, UsageError
from flowerray.pipeline import conversion
from flowerray.pipeline.prepare import quantised_in
from flowerray.progress import say
from flowerray.sources import photographs, uris
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder

BATCH = 16


class Embedder:
    """The base of a spec, ready on this machine; the quantised one of int8 is in `folder`."""

    def __init__(
        self,
        spec: BaseSpec,
        folder: Folder,
        weights: str = "imagenet",
        limits: Limits | None = None,
    ) -> None:
        found = pretrained.checked(spec, weights, say)
        if spec.calibration is not None:
            self.spec, model = spec, quantised_in(folder, spec.calibration)
        elif spec.engine == "openvino" and hardware.has_openvino():
            self.spec, model = spec, conversion.base(spec, found, run=conversion.here)
        else:
            engine = "onnxruntime" if spec.is_onnx else "keras"
            self.spec, model = replace(spec, engine=engine), found.arrays
        self.limits = limits or Limits()
        self._engine = PreparedBase(self.spec, model).open(hardware.available_cpus())

    def features(self, images: Sequence[Any]) -> Iterator[Any]:
        """Each image's features as an extraction stores them, float16 (*feature_shape), or why
        there are none (Rejected).

        Args:
            images: paths or uris, PIL images, bytes of files, pixels uint8 (h, w, 3).
        """
        for start in range(0, len(images), BATCH):
            outcomes = [self._pixels(image) for image in images[start : start + BATCH]]
            good = [i for i, one in enumerate(outcomes) if not isinstance(one, Rejected)]
            if good:
                computed = as_stored(self._engine(np.stack([outcomes[i] for i in good])))
                for i, one in zip(good, computed, strict=True):
                    outcomes[i] = one
            yield from outcomes

    def _pixels(self, image: Any) -> Any:
        if isinstance(image, (str, os.PathLike)):
            return photographs.read_and_decode(uri_of(image), None, self.spec, self.limits)
        return photographs.decoded(lambda: _file_of(image), self.spec, self.limits)


def uri_of(image: Any) -> str:
    """The uri of an image that is named by its path or uri; of another, what it is."""
    if not isinstance(image, (str, os.PathLike)):
        return type(image).__name__
    return uris.resolved(os.fspath(image), os.getcwd(), "photographs")


def check_used(image: Any, features: Any) -> np.ndarray:
    """
    Raises:
        FlowerrayError: the `features` of the image are why there are none.
    """
    if isinstance(features, Rejected):
        raise FlowerrayError(f"{uri_of(image)}: {features.reason}: {features.detail}")
    return np.asarray(features)


def _file_of(image: Any) -> bytes:
    """The bytes of an image file with the same pixels: so it is turned, scaled and coloured as any
    photograph is."""
    from PIL import Image

    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(
                f"an array of {image.dtype} {image.shape} is no photograph: give uint8 (h, w, 3)"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UsageError(
            f"{type(image).__name__} is no photograph: give a path, bytes, a PIL image or an array"
        )
    stream = io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    image.save(stream, "PNG", compress_level=1, exif=image.getexif())
    return stream.getvalue()
