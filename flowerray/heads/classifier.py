"""A classifier on disk: a directory that says all that labelling needs.

classifier.json   classes, base spec, recipe, scores; written last, so a directory with it is whole
head.keras        the head, in Keras' own format: features (n, *feature_shape) to the classes'
                  probabilities and, in one column more, the novelty (n, classes + 1)
head.npz          the same for numpy, where the features are embeddings and the layers dense
evidence.parquet  predictions of photographs by a head that was fitted without them
history.csv       numbers of each epoch, or of the fit where a recipe has none
errors.png        the validation photographs it gets wrong
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.bases.own import keras_file
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.heads.dense_head import DenseHead
from flowerray.outputs.kinds import kind_in
from flowerray.stores.folder import Folder

FORMAT = 2
FILES = (  # beside classifier.json
    *("head.keras", "head.npz", "evidence.parquet", "history.csv", "errors.png"),
    "int8.npz",  # the quantised base, see flowerray.pipeline.precision
)
ADDED = "added_features"  # of photographs that only its corrections name
EVIDENCE = pa.schema(
    [
        ("uri", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("prediction", pa.string()),
        ("confidence", pa.float32()),
        ("probabilities", pa.list_(pa.float32())),
        ("novelty", pa.float32()),
        ("embedding", pa.list_(pa.float16())),  # null where the features are something else
    ]
)
# A head is made of these alone; anything else in head.keras could run code of a stranger's.
LAYERS = (
    *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D"),
    *("Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D"),
    *("GlobalMaxPooling1D", "InputLayer", "LayerNormalization", "MaxPooling2D", "Multiply"),
    *("ReLU", "Rescaling", "Reshape", "SeparableConv2D", "UnitNormalization", "ZeroPadding2D"),
)
INITIALIZERS = ("GlorotUniform", "HeNormal", "Ones", "VarianceScaling", "Zeros")
INNER = (  # of the bases' own layers that have no public name
    *("ops.numpy.Add", "ops.numpy.Multiply", "applications.convnext.LayerScale"),
    "applications.inception_resnet_v2.CustomScaleLayer",
)
# What a recipe that has epochs goes on with.
OPTIMIZERS = ("Adam", "AdamW", "schedules.CosineDecay")
MODELS = frozenset({"keras.src.models.functional.Functional", "keras.Sequential"})
OBJECTS = frozenset(
    {
        "None.__keras_tensor__",
        *(f"keras.optimizers.{name}" for name in OPTIMIZERS),
        *("keras.DTypePolicy", "keras.Sequential"),
        *(f"keras.layers.{name}" for name in LAYERS),
        *(f"keras.initializers.{name}" for name in INITIALIZERS),
        *(f"keras.src.{name}" for name in INNER),
    }
)


@dataclass(frozen=True)
class Classifier:
    """A trained head with everything that labelling has to know."""

    classes: list[str]
    base_spec: BaseSpec
    feature_shape: tuple[int, ...]
    head: bytes
    dense: DenseHead | None
    about: dict[str, Any]

    @property
    def none_class(self) -> str | None:
        """The class that stands for none of the others, if the classifier learned one: it is never
        given as a label."""
        return self.about.get("none_class")

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits of the head's SHA-256 and the base spec's fingerprint."""
        return hashlib.sha256(self.head + self.base_spec.fingerprint.encode()).hexdigest()[:16]


def load(directory: str) -> Classifier:
    """Read a classifier without running anything in it.

    Raises:
        FlowerrayError: there is none, it is damaged, or its head holds what no recipe makes.
    """
    folder = Folder.at(directory)
    try:
        about = json.loads(folder.read("classifier.json"))
        head = folder.read("head.keras")
        dense = folder.read("head.npz") if "dense_sha256" in about else b""
    except (FileNotFoundError, NotADirectoryError):
        there = kind_in(folder)
        found = (
            f"{directory} holds {there}, no classifier"
            if there
            else f"no classifier in {directory}"
        )
        raise FlowerrayError(f"{found}: give the --out of `flowerray train`") from None
    except (OSError, ValueError) as error:
        raise FlowerrayError(f"{directory} can't be read as a classifier: {error}") from None
    try:
        if about["format"] != FORMAT:
            raise FlowerrayError(
                f"{directory} has format {about['format']}, this flowerray reads {FORMAT}: "
                "train again"
            )
        classifier = Classifier(
            list(about["classes"]),
            BaseSpec.from_dict(about["base_spec"]),
            tuple(about["feature_shape"]),
            head,
            DenseHead.from_bytes(dense) if dense else None,
            about,
        )
        shas = [about["head_sha256"], about.get("dense_sha256", hashlib.sha256().hexdigest())]
        whole = shas == [hashlib.sha256(data).hexdigest() for data in (head, dense)]
    except (KeyError, TypeError) as error:
        raise FlowerrayError(f"{directory}/classifier.json lacks or misspells {error}") from None
    except ValueError as error:
        raise FlowerrayError(f"{directory}/head.npz can't be read: {error}; train again") from None
    if not whole:
        raise FlowerrayError(f"{directory} has a head that is not the head that its record names")
    check_layers(head, directory)
    return classifier


def evidence(directory: str, of_pile: bool = False) -> pa.Table:
    """The classifier's evidence, see ``EVIDENCE``: of labelled photographs, or what people decided
    of a pile's random sample (the split `pile`).

    Raises:
        FlowerrayError: it can't be read.
    """
    folder = Folder.at(directory)
    try:
        table = pq.read_table(folder.open("evidence.parquet"), schema=EVIDENCE)
        return table.filter(pc.equal(pc.equal(table["split"], "pile"), of_pile))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        file = folder.file("evidence.parquet")
        raise FlowerrayError(f"{file} can't be read: {reason}; train again") from None


def head_bytes(model: Any) -> bytes:
    """`model` in Keras' own format, with its optimizer's state if it has one."""
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "head.keras")
        model.save(file)
        with open(file, "rb") as stream:
            return stream.read()


def check_layers(head: bytes, of: str) -> None:
    """Refuse a head with anything but the layers and optimizers that recipes make.

    Raises:
        FlowerrayError: that of `of` has others, or is no Keras model.
    """
    try:
        whole, *parts = keras_file.made_by(head)
    except ValueError as error:
        raise FlowerrayError(f"the head of {of} is {error}") from None
    strange = sorted({name for name in parts if name not in OBJECTS})
    if whole not in MODELS:
        strange.insert(0, whole)
    if strange:
        raise FlowerrayError(
            f"the head of {of} holds {', '.join(strange)}, which no recipe of flowerray "
            "makes: refused, since it could run code"
        )
