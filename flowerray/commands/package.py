"""A classifier as one file that runs without flowerray: base, preparation and head."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray import stores
from flowerray.bases import hardware
from flowerray.bases import weights as pretrained
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier, packaged
from flowerray.heads.classifier import Classifier
from flowerray.packages import Package, card
from flowerray.packages.keras import KerasPackage, exported
from flowerray.packages.onnx import OnnxPackage
from flowerray.progress import say
from flowerray.settings import PACKAGE_SUFFIXES, PackageSettings
from flowerray.sources import photographs
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import located, whole_file
from flowerray.version import __version__

TRIED = 32  # photographs
MOST_SIDE = 10**6  # pixels: none is made smaller


@dataclass(frozen=True)
class PackageSummary:
    """The package's `files` and its `card`; the id of the classifier in it, its release; how many
    `bytes` it has, and of how many `photographs` it gives the `same` label as the classifier, None
    where none were there to try."""

    files: list[str]
    card: str
    format: str
    classifier: str
    release: int
    bytes: int
    agreement: dict[str, int] | None


def package(settings: PackageSettings) -> PackageSummary:
    """Write the classifier in ``settings.classifier`` as one file.

    Raises:
        UsageError: a package is asked to be packaged, or ``settings.out`` is there already.
        FlowerrayError: no classifier, its weights aren't there, or what packages it isn't
            installed.
    """
    trained = classifier.load(settings.classifier)
    if trained.base is not None:
        raise UsageError(f"{settings.classifier} is a package already")
    _check_installed(settings.format)
    out = located(settings.out)
    stem, _ = os.path.splitext(out)
    files = [stem + suffix for suffix in PACKAGE_SUFFIXES[settings.format]]
    card_file = f"{out}.md"
    _check_free([*files, card_file], settings.overwrite)
    evidence = classifier.evidence(settings.classifier)
    weights = pretrained.checked(trained.base_spec, settings.weights, say).arrays
    say(f"package: exporting {trained.base_spec.base} and the head")
    made = _made(trained, weights, settings)
    agreement = _agreement(made, trained, evidence)
    about = {**trained.about, "mistakes": []}  # which name photographs
    identity = {
        "classifier": trained.id,
        "release": str(settings.release),
        "format": made.kind,
        "made by": f"flowerray {__version__}",
    }
    text = card.written(os.path.basename(stem), about, evidence, identity, agreement)
    metadata = {
        "card": text,
        "classes": json.dumps(trained.classes),
        packaged.ABOUT: json.dumps({**about, "package": identity}),
        packaged.EVIDENCE: base64.b64encode(_without_names(evidence)).decode(),
    }
    size = 0
    for file, data in zip(files, made.files(metadata), strict=True):
        size += len(data)
        with whole_file(file) as stream:
            stream.write(data)
    with whole_file(card_file) as stream:
        stream.write(text.encode())
    return PackageSummary(
        files, card_file, settings.format, trained.id, settings.release, size, agreement
    )


def _check_installed(format: str) -> None:
    if format != "keras" and find_spec("tf2onnx") is None:
        raise FlowerrayError("what exports ONNX is not installed: pip install 'flowerray[package]'")
    if format == "openvino" and not hardware.has_openvino():
        raise FlowerrayError("OpenVINO is not installed: pip install 'flowerray[openvino]'")


def _check_free(files: list[str], overwrite: bool) -> None:
    for file in files:
        if not stores.is_remote(file) and os.path.isdir(file):
            raise UsageError(f"{file} is a directory: choose a file for --out")
        if not overwrite and stores.store_at(file).exists(file):
            raise UsageError(f"{file} is there already: choose another --out, or --overwrite it")


def _made(trained: Classifier, weights: list[np.ndarray], settings: PackageSettings) -> Package:
    spec = trained.base_spec
    if settings.format == "keras":
        return KerasPackage(spec, weights, trained.head)
    base, head = exported(spec, weights, trained.head)
    made = OnnxPackage(base, head, spec, settings.release)
    if settings.format == "openvino":
        from flowerray.packages.openvino import OpenVinoPackage

        return OpenVinoPackage(made.graph, spec)
    return made


def _agreement(made: Package, trained: Classifier, evidence: pa.Table) -> dict[str, int] | None:
    """Of how many photographs to validate, of those that are there, `made` gives the same label as
    the classifier; None of none."""
    judged = evidence.filter(pc.equal(evidence["split"], "valid"))
    chosen = np.linspace(0, len(judged), min(TRIED, len(judged)), endpoint=False, dtype=int)
    tried = same = 0
    for row in judged.take(pa.array(chosen)).select(["uri", "prediction"]).to_pylist():
        try:
            data = photographs.read(row["uri"], None, Limits())
            whole = photographs.thumbnail(data, MOST_SIDE, Limits())
        except Rejected:
            continue
        (found,) = made.probabilities(np.asarray(whole)[None])
        tried += 1
        same += trained.classes[int(found.argmax())] == row["prediction"]
    if not tried:
        say("package: none of the photographs to validate is there, so its labels were not tried")
        return None
    say(f"package: {same} of {tried} photographs get the classifier's label")
    return {"photographs": tried, "same": same}


def _without_names(evidence: pa.Table) -> bytes:
    """What thresholds are found by, as the bytes of an evidence.parquet: neither the photographs'
    names nor what they look like."""
    for name in ("uri", "probabilities", "embedding"):
        place, kind = evidence.schema.get_field_index(name), evidence.schema.field(name)
        evidence = evidence.set_column(place, kind, pa.nulls(len(evidence), kind.type))
    stream = io.BytesIO()
    pq.write_table(evidence, stream, compression="zstd")
    return stream.getvalue()
