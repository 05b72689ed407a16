"""The second job: one Ray task fits a head on feature shards and saves a classifier."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import flowerray
from flowerray import classifier, cluster, gallery, heads, scores, shards
from flowerray.bases import BaseSpec, fingerprint_of
from flowerray.engines.keras import import_keras, open_head
from flowerray.errors import FlowerrayError
from flowerray.precision import QUANTISED
from flowerray.progress import say
from flowerray.settings import TrainSettings
from flowerray.shards import Output
from flowerray.storage import Folder

GALLERY_PHOTOGRAPHS = 60
# What a training that was killed may have left of a classifier.
PARTS = {"tmp", "checkpoint", "head.keras", "history.csv", "errors.png", QUANTISED}


@dataclass(frozen=True)
class TrainSummary:
    """The classifier, its scores on the validation photographs (see ``flowerray.scores.score``),
    the photographs it gets wrong, and the head's fit in seconds."""

    out: str
    classes: list[str]
    scores: dict[str, Any]
    mistakes: list[dict[str, Any]]
    fit_seconds: float


def train(settings: TrainSettings) -> TrainSummary:
    """Fit a head on extracted features and save it as a classifier.

    Raises:
        FlowerrayError: no features, shards missing or of different makes, classes that can't be
            trained on or validated, or an output that holds something else.
    """
    out = Folder.at(settings.out)
    output = shards.read_output(settings.features, "features")
    config = {
        "features": [output.manifest.fingerprint, output.run["config"]],
        "recipe": settings.recipe,
        "epochs": settings.epochs,
        "seed": settings.seed,
    }
    if settings.overwrite and out.file("classifier.json").exists():
        shutil.rmtree(out.path)
    if _is_done(out, config):
        say(f"{out} is trained on these features with these settings already")
        return summary_of(str(out))
    missing = output.missing()
    if missing:
        raise FlowerrayError(
            f"{output.folder} lacks {len(missing)} of its {len(output.manifest.shards())} shards: "
            "run the same `flowerray extract` again to finish it"
        )
    with cluster.connection(settings.address):
        import ray

        resources = cluster.trainer_resources()
        fit = ray.remote(fit_and_save).options(num_returns="streaming", **resources)
        messages: Any = fit.remote(output, settings, config, resources)
        for message in messages:
            say(ray.get(message))
    return summary_of(str(out))


def summary_of(directory: str) -> TrainSummary:
    """What the training of the classifier in `directory` gave."""
    about = classifier.load(directory).about
    return TrainSummary(
        directory, about["classes"], about["scores"], about["mistakes"], about["fit_seconds"]
    )


def fit_and_save(
    output: Output, settings: TrainSettings, config: dict[str, Any], resources: dict[str, float]
) -> Iterator[str]:
    """The trainer task: yields a line of progress an epoch, and leaves the classifier."""
    import_keras(max(1, int(resources["num_cpus"])))
    with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
        loaded = _load(output, Path(directory))
        data = loaded.data
        yield (
            f"train: {len(data.labels):,} photographs to train on, {len(data.valid_labels):,} to "
            f"validate, {data.classes} classes"
        )
        checkpoint = _Checkpoint(Folder.at(settings.out), fingerprint_of(config))
        started, history, before = time.perf_counter(), *checkpoint.load()
        if before is not None:
            yield f"train: going on after epoch {before.epochs}"
            model = before.model
        recipe = heads.RECIPES[settings.recipe]
        for numbers, model in recipe(data, settings.epochs, settings.seed, before):
            history.append(numbers)
            checkpoint.save(history, model)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            yield f"train: epoch {len(history)}: {shown}"
        fit_seconds = time.perf_counter() - started
        probabilities = heads.predict(model, data.valid_features)
    _save(output, settings, config, loaded, model, probabilities, history, fit_seconds)


class _Checkpoint:
    """The model after each epoch, so that a killed trainer goes on where it was.

    ``checkpoint/progress.json`` names the epoch's model and is written after it.
    """

    def __init__(self, out: Folder, config_fingerprint: str) -> None:
        self.out, self.config_fingerprint = out, config_fingerprint

    def load(self) -> tuple[list[dict[str, float]], heads.Progress | None]:
        """History and model of an earlier run of the same configuration; empty without one."""
        try:
            progress = json.loads(self.out.file("checkpoint/progress.json").read_bytes())
            if progress["config_fingerprint"] != self.config_fingerprint:
                return [], None
            history = progress["history"]
            head = self.out.file(f"checkpoint/{len(history)}.keras").read_bytes()
            return history, heads.Progress(len(history), open_head(head, compile=True))
        except (OSError, ValueError, KeyError):
            return [], None

    def save(self, history: list[dict[str, float]], model: Any) -> None:
        """Make `model`, after ``len(history)`` epochs, the one to go on from."""
        self.out.write(f"checkpoint/{len(history)}.keras", classifier.head_bytes(model))
        progress = {"config_fingerprint": self.config_fingerprint, "history": history}
        self.out.write("checkpoint/progress.json", json.dumps(progress).encode())
        self.out.file(f"checkpoint/{len(history) - 1}.keras").unlink(missing_ok=True)


@dataclass(frozen=True)
class _Loaded:
    data: heads.TrainingData
    classes: list[str]
    valid_uris: list[str]
    base_spec: BaseSpec


def _load(output: Output, directory: Path) -> _Loaded:
    """Stream the shards into one array on disk, so that features may be larger than memory."""
    labels = shards.read_table(output, ["label", "split", "error", "uri"])
    usable = pc.and_(pc.is_null(labels["error"]), pc.is_valid(labels["label"]))
    labels = labels.filter(usable)
    classes = sorted(labels["label"].unique().to_pylist())
    split = labels["split"].to_numpy(zero_copy_only=False)
    indices = pc.index_in(labels["label"], pa.array(classes)).to_numpy()
    _check_classes(output, classes, indices, split)

    spec, shape, features, filled = None, None, None, 0
    for name in sorted(output.folder.names("shards")):
        table = pq.read_table(output.folder.file(f"shards/{name}"))
        about = json.loads(table.schema.metadata[b"flowerray"])
        found = BaseSpec.from_dict(about["config"]["base_spec"])
        if spec is not None and found != spec:
            raise FlowerrayError(
                f"{output.folder} mixes features of two makes ({spec.differences(found)} in "
                f"shards/{name}): extract again into an empty directory"
            )
        spec, shape = found, tuple(json.loads(table.schema.metadata[b"feature_shape"]))
        keep = pc.and_(pc.is_null(table["error"]), pc.is_valid(table["label"]))
        column = table["features"].filter(keep).combine_chunks()
        rows = column.flatten().to_numpy().reshape(-1, *shape)
        if features is None:
            features = np.memmap(
                directory / "features", np.float16, "w+", shape=(len(labels), *shape)
            )
        features[filled : filled + len(rows)] = rows
        filled += len(rows)
    assert features is not None and spec is not None
    is_valid = split == "valid"
    is_train = split == "train"
    # Rows of a split are taken as a slice where they lie together, as they do in the article's
    # layout, and else copied to a second file.
    data = heads.TrainingData(
        _rows(features, is_train, directory / "train"),
        indices[is_train],
        _rows(features, is_valid, directory / "valid"),
        indices[is_valid],
        len(classes),
    )
    valid_uris = labels["uri"].filter(pa.array(is_valid)).to_pylist()
    return _Loaded(data, classes, valid_uris, spec)


def _rows(features: np.ndarray, chosen: np.ndarray, file: Path) -> np.ndarray:
    rows = np.flatnonzero(chosen)
    if rows[-1] - rows[0] + 1 == len(rows):
        return features[rows[0] : rows[-1] + 1]
    copied = np.memmap(file, features.dtype, "w+", shape=(len(rows), *features.shape[1:]))
    for start in range(0, len(rows), 1024):
        copied[start : start + 1024] = features[rows[start : start + 1024]]
    return copied


def _check_classes(
    output: Output, classes: list[str], indices: np.ndarray, split: np.ndarray
) -> None:
    where = output.folder
    if not classes:
        raise FlowerrayError(f"{where} has no labelled photographs: extract a folder of classes")
    if len(classes) == 1:
        raise FlowerrayError(f"{where} has only one class, {classes[0]!r}: two are needed")
    for part, purpose in (("train", "train on"), ("valid", "validate")):
        counts = np.bincount(indices[split == part], minlength=len(classes))
        if not counts.all():
            name = classes[int(counts.argmin())]
            raise FlowerrayError(
                f"class {name!r} of {where} has no readable photographs to {purpose}: add some"
            )


def _is_done(out: Folder, config: dict[str, Any]) -> bool:
    if not out.path.exists() or not out.names("."):
        return False
    if not out.file("classifier.json").exists():
        others = out.names(".") - PARTS
        if others:
            raise FlowerrayError(
                f"{out} holds something else ({min(others)}): choose an empty or new directory"
            )
        return False
    if classifier.load(str(out)).about["config_fingerprint"] == fingerprint_of(config):
        return True
    raise FlowerrayError(
        f"{out} holds a classifier of other features or settings: choose another --out, "
        "or --overwrite it"
    )


def _save(
    output: Output,
    settings: TrainSettings,
    config: dict[str, Any],
    loaded: _Loaded,
    model: Any,
    probabilities: np.ndarray,
    history: list[dict[str, float]],
    fit_seconds: float,
) -> None:
    truth, predicted = loaded.data.valid_labels, probabilities.argmax(axis=1)
    mistakes = [
        {
            "uri": loaded.valid_uris[i],
            "original_label": loaded.classes[truth[i]],
            "prediction": loaded.classes[predicted[i]],
            "confidence": round(float(probabilities[i, predicted[i]]), 6),
        }
        for i in np.flatnonzero(predicted != truth)
    ]
    mistakes.sort(key=lambda mistake: -mistake["confidence"])
    head = classifier.head_bytes(heads.without_optimizer(model))
    about = {
        "format": classifier.FORMAT,
        "classes": loaded.classes,
        "feature_shape": list(loaded.data.features.shape[1:]),
        "base_spec": output.run["config"]["base_spec"],
        "recipe": settings.recipe,
        "epochs": len(history),
        "seed": settings.seed,
        "trained_on": len(loaded.data.labels),
        "scores": scores.score(truth, predicted, loaded.classes),
        "mistakes": mistakes,
        "fit_seconds": round(fit_seconds, 3),
        "features_fingerprint": output.manifest.fingerprint,
        "config_fingerprint": fingerprint_of(config),
        "head_sha256": hashlib.sha256(head).hexdigest(),
        "flowerray_version": flowerray.__version__,
    }
    out = Folder.at(settings.out)
    out.write("head.keras", head)
    if loaded.base_spec.calibration is not None:
        out.write(QUANTISED, output.folder.file(QUANTISED).read_bytes())
    out.write("history.csv", _as_csv(history).encode())
    captions = [
        (m["uri"], f"original {m['original_label']}\nlabel {m['prediction']} {m['confidence']:.3f}")
        for m in mistakes[:GALLERY_PHOTOGRAPHS]
    ]
    title = f"{len(mistakes)} errors of {len(truth)}, most confident first"
    out.write("errors.png", gallery.draw(captions, title))
    out.write("classifier.json", json.dumps(about, indent=2).encode())
    out.clear("checkpoint")
    out.clear("tmp")


def _as_csv(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *history[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **numbers} for i, numbers in enumerate(history, start=1))
    return text.getvalue()
