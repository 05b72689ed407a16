"""A classifier for a few photographs at a time, in this process: no Ray, no output directory.

classifier = flowerray.load("classifier")
classifier.predict("rose.jpg").label
classifier.embed([image, array, data])
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.bases import hardware
from flowerray.commands.embedder import Embedder, check_used, uri_of
from flowerray.errors import FlowerrayError
from flowerray.heads import classifier
from flowerray.pipeline import conversion
from flowerray.pipeline.prepare import prepared_head, weights_of
from flowerray.settings import AcceptanceSettings, PredictSettings, directory_meant
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder
from flowerray.trust.acceptance import asked_for


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
        where = directory_meant(os.fspath(directory))
        self.trained = classifier.load(where)
        self.classes = self.trained.classes
        asked = AcceptanceSettings(min_precision=min_precision, min_confidence=min_confidence)
        given = [name for name in self.classes if name != self.trained.none_class]
        self._acceptance = asked_for(asked, given, where)
        found = weights_of(self.trained, weights)
        self._embedder = Embedder(self.trained.base_spec, Folder.at(where), found, limits)
        head = prepared_head(self.trained, self._embedder.spec, run=conversion.here)
        self._head = head.open(hardware.available_cpus())

    def predict(self, images: Any) -> Any:
        """What the classifier says of photographs: a `Prediction`, or a list of them for a list.

        Args:
            images: a path or uri, a PIL image, the bytes of a file, pixels uint8 (h, w, 3), or a
                list of these.
        """
        several = isinstance(images, (list, tuple))
        asked = images if several else [images]
        computed = self._embedder.features(asked)
        found = [self._prediction(*one) for one in zip(asked, computed, strict=True)]
        return found if several else found[0]

    def embed(self, images: Any) -> np.ndarray:
        """The features of photographs as an extraction stores them, float16 (n, *feature_shape);
        (*feature_shape) for a single one.

        Raises:
            FlowerrayError: one of them can't be read.
        """
        several = isinstance(images, (list, tuple))
        asked = images if several else [images]
        computed = self._embedder.features(asked)
        found = [check_used(*one) for one in zip(asked, computed, strict=True)]
        shape = (0, *self.trained.feature_shape)
        return (np.stack(found) if found else np.zeros(shape, np.float16)) if several else found[0]

    def _prediction(self, image: Any, features: Any) -> Prediction:
        uri = uri_of(image) if isinstance(image, (str, os.PathLike)) else None
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
    """Load a classifier that `flowerray train` left in `directory`, or the ONNX file that
    `flowerray package` made of one, to predict in this process.

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
