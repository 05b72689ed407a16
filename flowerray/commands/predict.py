"""A classifier for a few photographs at a time, in this process: no Ray, no output directory.

classifier = flowerray.load("classifier")
classifier.predict("rose.jpg").label
classifier.embed([image, array, data])
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.bases import hardware
from flowerray.bases import weights as pretrained
from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier
from flowerray.pipeline import conversion
from flowerray.pipeline.prepare import prepared_head, quantised_in
from flowerray.progress import say
from flowerray.settings import AcceptanceSettings, PredictSettings
from flowerray.sources import photographs, uris
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder
from flowerray.trust.acceptance import asked_for

BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of a photograph, `uri` where it was a file: its `label`, None where it
    is none of the classes or can't be read, for the reason `error`; its confidence, the classes'
    `probabilities`, the `novelty` (above 1: unlike all that was trained on), and whether it is
    `accepted`, None where nobody asked."""

    uri: str | None
    label: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    novelty: float | None
    accepted: bool | None
    error: str | None


class Predictor:
    """A classifier, loaded: its base and its head, ready on this machine."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        min_precision: float | None = None,
        min_confidence: float | None = None,
        weights: str = "imagenet",
        limits: Limits | None = None,
    ) -> None:
        where = os.fspath(directory)
        self.trained = classifier.load(where)
        self.classes = self.trained.classes
        self.limits = limits or Limits()
        asked = AcceptanceSettings(min_precision=min_precision, min_confidence=min_confidence)
        given = [name for name in self.classes if name != self.trained.none_class]
        self._acceptance = asked_for(asked, given, where)
        own = self.trained.base_spec
        found = pretrained.checked(own, weights, say)
        threads = hardware.available_cpus()
        if own.calibration is not None:
            self.spec, model = own, quantised_in(Folder.at(where), own.calibration)
        elif own.engine == "openvino" and hardware.has_openvino():
            self.spec, model = own, conversion.base(own, found, run=conversion.here)
        else:
            self.spec, model = replace(own, engine="keras"), found.arrays
        self._engine = PreparedBase(self.spec, model).open(threads)
        self._head = prepared_head(self.trained, self.spec, run=conversion.here).open(threads)

    def predict(self, images: Any) -> Any:
        """What the classifier says of photographs: a `Prediction`, or a list of them for a list.

        Args:
            images: a path or uri, a PIL image, the bytes of a file, pixels uint8 (h, w, 3), or a
                list of these.
        """
        several = isinstance(images, (list, tuple))
        found = [self._prediction(*one) for one in self._features(images if several else [images])]
        return found if several else found[0]

    def embed(self, images: Any) -> np.ndarray:
        """The features of photographs as an extraction stores them, float16 (n, *feature_shape);
        (*feature_shape) for a single one.

        Raises:
            FlowerrayError: one of them can't be read.
        """
        several = isinstance(images, (list, tuple))
        found = []
        for one, features in self._features(images if several else [images]):
            if isinstance(features, Rejected):
                raise FlowerrayError(f"{_name(one)}: {features.reason}: {features.detail}")
            found.append(features)
        shape = (0, *self.trained.feature_shape)
        return (np.stack(found) if found else np.zeros(shape, np.float16)) if several else found[0]

    def _features(self, images: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Each image, with its features float16 or why it has none."""
        outcomes: list[Any] = []
        for start in range(0, len(images), BATCH):
            pixels = [self._pixels(image) for image in images[start : start + BATCH]]
            good = [i for i, one in enumerate(pixels) if not isinstance(one, Rejected)]
            if good:
                computed = as_stored(self._engine(np.stack([pixels[i] for i in good])))
                for i, features in zip(good, computed, strict=True):
                    pixels[i] = features
            outcomes += pixels
        return list(zip(images, outcomes, strict=True))

    def _pixels(self, image: Any) -> Any:
        if isinstance(image, (str, os.PathLike)):
            uri = _uri(image)
            return photographs.read_and_decode(uri, None, self.spec, self.limits)
        return photographs.decoded(lambda: _file_of(image), self.spec, self.limits)

    def _prediction(self, image: Any, features: Any) -> Prediction:
        uri = _uri(image) if isinstance(image, (str, os.PathLike)) else None
        if isinstance(features, Rejected):
            why = f"{features.reason}: {features.detail}"
            return Prediction(uri, None, None, None, None, None, why)
        *probabilities, novelty = map(float, self._head(features[None])[0])
        best = int(np.argmax(probabilities))
        label = self.classes[best] if self.classes[best] != self.trained.none_class else None
        accepted = None
        if self._acceptance is not None:
            sure, novel = (np.array([v], np.float32) for v in (probabilities[best], novelty))
            accepted = self._acceptance.of(pa.array([label], pa.string()), sure, novel)[0].as_py()
        return Prediction(
            *(uri, label, probabilities[best]),
            dict(zip(self.classes, probabilities, strict=True)),
            *(novelty, accepted, None),
        )


def load(
    directory: str | os.PathLike[str],
    *,
    min_precision: float | None = None,
    min_confidence: float | None = None,
    weights: str = "imagenet",
) -> Predictor:
    """Load a classifier that `flowerray train` left in `directory`, to predict in this process.

    Raises:
        FlowerrayError: there is none, its weights are not there, or it has no evidence for a
            precision.
    """
    return Predictor(directory, min_precision, min_confidence, weights)


def predict(settings: PredictSettings) -> list[Prediction]:
    """Say what a few photographs show.

    Raises:
        FlowerrayError: as `load`, or none of them could be read.
    """
    loaded = Predictor(
        settings.classifier,
        settings.min_precision,
        settings.min_confidence,
        settings.weights,
        settings.limits,
    )
    found: list[Prediction] = loaded.predict(list(settings.photographs))
    if all(one.error for one in found):
        raise FlowerrayError(f"none of the photographs could be used: {found[0].error}")
    return found


def _uri(image: str | os.PathLike[str]) -> str:
    return uris.resolved(os.fspath(image), os.getcwd(), "photographs")


def _name(image: Any) -> str:
    return _uri(image) if isinstance(image, (str, os.PathLike)) else f"a {type(image).__name__}"


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
