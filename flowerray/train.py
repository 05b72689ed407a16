"""The second job: one Ray task fits a head on feature shards and saves a classifier."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import flowerray
from flowerray import (
    calibration,
    classifier,
    cluster,
    conversion,
    copies,
    corrections,
    gallery,
    hardware,
    heads,
    lease,
    novelty,
    scores,
    shards,
    shared_disk,
    stores,
    tracking,
)
from flowerray import weights as pretrained
from flowerray.bases import BaseSpec, fingerprint_of
from flowerray.catalog import Shard
from flowerray.engines import openvino
from flowerray.engines.keras import check_layers_left, import_keras, layers_after, open_head
from flowerray.errors import FlowerrayError
from flowerray.lease import SCRATCH, HeldFolder
from flowerray.precision import QUANTISED
from flowerray.progress import say
from flowerray.settings import TrainSettings
from flowerray.shards import Output
from flowerray.storage import Folder

GALLERY_PHOTOGRAPHS = 60
KIND = "a classifier"
CHECKPOINT = f"{SCRATCH}/checkpoint"


@dataclass(frozen=True)
class TrainSummary:
    """The classifier, how many photographs it is trained on, its scores on those to validate (see
    ``flowerray.scores.score``), those it gets wrong, and the head's fit in seconds."""

    out: str
    classes: list[str]
    trained_on: int
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
    settings = replace(settings, out=str(out))  # the trainer's directory may be another
    output = shards.read_output(settings.features, "features")
    corrected: corrections.Corrections = {}
    chosen = ("recipe", "epochs", "patience", "class_weights", "seed")
    output.check_whole()
    if settings.corrections:
        read = corrections.read(settings.corrections, columns=settings.columns)
        corrected = corrections.matched(output, read, settings) if read else {}
    rejected = _surveyed(output, corrected)
    config = {
        "features": [
            output.manifest.fingerprint,
            output.run["config"],
            *([rejected] if rejected else []),
        ],
        "corrections": sorted(corrected.items()),
        **{name: getattr(settings, name) for name in chosen},
    }
    spec, fingerprint = output.run["config"]["base_spec"], fingerprint_of(config)
    anew = settings.overwrite and out.exists("classifier.json")
    if not anew and _is_done(out, config):
        say(f"{out} is trained on these features with these settings already")
        with tracking.started(settings, spec, fingerprint, going_on=True) as trackers:
            trackers.finished()
        return summary_of(str(out))
    with lease.held(out, KIND) as held:
        return _train_into(held, settings, output, corrected, config)


def _train_into(
    out: HeldFolder,
    settings: TrainSettings,
    output: Output,
    corrected: dict[str, str | None],
    config: dict[str, Any],
) -> TrainSummary:
    spec, fingerprint = output.run["config"]["base_spec"], fingerprint_of(config)
    anew = settings.overwrite and out.exists("classifier.json")
    if not anew and _is_done(out, config):  # by another that ended meanwhile
        return summary_of(str(out))
    added = corrections.with_features(output, corrected, settings) if corrected else None
    weights = None
    if settings.recipe == "finetune":
        check_layers_left(BaseSpec.from_dict(spec))
        weights = pretrained.checked(BaseSpec.from_dict(spec), settings.weights, say).arrays
    begun = not anew and bool(_Checkpoint(out, fingerprint).history())
    with (
        tracking.started(settings, spec, fingerprint, going_on=begun) as trackers,
        cluster.connection(settings.address),
    ):
        import ray

        features = [output.folder.file("run.json")] if output.folder.is_local else []
        shared_disk.check(Path(out.uri) if out.is_local else None, features)
        resources = cluster.trainer_resources()
        cluster.say_if_full("train", *resources.values())
        fit = ray.remote(fit_and_save).options(num_returns="streaming", **resources)
        messages: Any = fit.remote(
            stores.in_use(), out, output, added, settings, config, corrected, weights, resources
        )
        try:
            for reference in messages:
                message = ray.get(reference)
                if isinstance(message, str):
                    say(message)
                elif isinstance(message, list):
                    trackers.epochs(message)
                elif hardware.has_openvino():
                    conversion.keep_head(*message)
        except BaseException:
            with suppress(Exception):  # a Ray that stays would train on, beside the next try
                ray.cancel(messages, force=True)
            raise
        trackers.finished()
    return summary_of(str(out))


def summary_of(directory: str) -> TrainSummary:
    """What the training of the classifier in `directory` gave."""
    about = classifier.load(directory).about
    return TrainSummary(
        directory,
        about["classes"],
        about["trained_on"],
        about["scores"],
        about["mistakes"],
        about["fit_seconds"],
    )


def fit_and_save(
    access: stores.Access,
    out: HeldFolder,
    output: Output,
    added: Output | None,
    settings: TrainSettings,
    config: dict[str, Any],
    corrected: dict[str, str | None],
    weights: list[np.ndarray] | None,
    resources: dict[str, float],
) -> Iterator[str | tracking.History | tuple[bytes, conversion.Converted]]:
    """The trainer task: yields a line of progress and the history so far after each epoch, leaves
    the classifier, and yields its head as it is and converted where OpenVINO made the features."""
    cluster.set_up_worker(access)
    keras = import_keras(max(1, int(resources["num_cpus"])))
    with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
        loaded = _load([output, *([added] if added else [])], corrected, Path(directory))
        loaded = replace(loaded, data=heads.with_copies(loaded.data))
        data = loaded.data
        if settings.class_weights == "balanced":
            counts = np.bincount(data.labels, minlength=data.classes)
            data = replace(data, class_weights=len(data.labels) / (data.classes * counts))
        if weights is not None:
            data = replace(data, rest=layers_after(loaded.base_spec, weights))
            classifier.check_layers(classifier.head_bytes(data.rest), loaded.base_spec.base)
        yield (
            f"train: {len(data.labels):,} photographs to train on, {len(data.valid_labels):,} to "
            f"validate, {data.classes} classes"
        )
        if settings.overwrite and out.exists("classifier.json"):  # now that there will be another
            out.remove("classifier.json")
            out.remove_files(".", classifier.FILES)
            out.remove(CHECKPOINT)
            if added is None:
                out.remove(corrections.ADDED)
        checkpoint = _Checkpoint(out, fingerprint_of(config))
        started, history, before = time.perf_counter(), *checkpoint.load()
        if before is not None:
            yield f"train: going on after epoch {before.epochs}"
            model = before.model
        recipe = heads.RECIPES[settings.recipe]
        epochs = recipe(data, settings.epochs, settings.seed, before)
        while not _is_over(history, settings.patience) and (epoch := next(epochs, None)):
            numbers, model = epoch
            history.append(numbers)
            checkpoint.save(history, model)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            yield f"train: epoch {len(history)}: {shown}"
            yield history
        if settings.patience and "val_loss" in history[0]:
            model = checkpoint.model_after(_best(history))
            yield f"train: keeping the head of epoch {_best(history)}"
        fit_seconds = time.perf_counter() - started
        fitted = Fitted.of(model, settings, data)
        found = fitted.calibration
        yield from _told_of_copies(loaded, found["copies"])
        yield (
            f"train: calibrated on {found['photographs']:,} photographs ({found['source']}): "
            f"expected error {found['ece_before']:.3f} before, {found['ece_after']:.3f} after"
        )
    _save(out, output, settings, config, loaded, fitted, history, fit_seconds)
    converts = hardware.has_openvino() and keras.backend.backend() == "tensorflow"
    if loaded.base_spec.engine == "openvino" and converts:
        yield fitted.head, openvino.convert_head(fitted.head)


def _told_of_copies(loaded: _Loaded, left_out: dict[str, int]) -> Iterator[str]:
    """A line for copies that are no evidence, and one for each class that has no evidence."""
    data = loaded.data
    if any(left_out.values()):
        yield (
            f"train: {left_out['train']:,} photographs to train on are copies of others there, "
            f"{left_out['valid']:,} to validate of these or of each other: copies are no evidence"
        )
    assert data.groups is not None
    for index, name in enumerate(loaded.classes):
        if len(np.unique(data.groups_to_train[data.labels == index])) == 1:
            yield (
                f"train: all photographs of {name} to train on are one, or copies of it: it can't "
                "be judged by others; add different ones"
            )


def _surveyed(output: Output, corrected: corrections.Corrections) -> list[int]:
    """The image_id of each photograph without features; later it may have some.

    Raises:
        FlowerrayError: the classes can't be trained on and validated, by the features and by what
            they are `corrected` to.
    """
    columns = ["image_id", "uri", "label", "split", "error", "error_detail"]
    table = shards.read_table(output, columns if corrected else [c for c in columns if c != "uri"])
    if corrected:
        uris, labels = _columns(table, "uri", "label")
        there = set(uris)
        new = [n for u, n in corrected.items() if n is not None and u not in there]
        labels = [corrected.get(u, n) for u, n in zip(uris, labels, strict=True)]
        table = table.drop_columns(["uri", "label"]).append_column(
            "label", pa.array(labels, pa.string())
        )
        added = pa.table({"label": new, "split": ["train"] * len(new)})
        table = pa.concat_tables([table, added], promote_options="permissive")
    _check_classes(output, table)
    rejected = table.filter(pc.is_valid(table["error"]))
    return rejected["image_id"].to_pylist()


def _is_over(history: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no smaller loss."""
    return bool(history) and patience is not None and len(history) - _best(history) >= patience


def _best(history: list[dict[str, float]]) -> int:
    """The epoch, counted from 1, with the smallest loss on the validation photographs."""
    losses = [numbers.get("val_loss", 0.0) for numbers in history]
    return 1 + int(np.argmin(losses))


@dataclass(frozen=True)
class Fitted:
    """The head as it is saved, and what heads fitted without them say of photographs: `out_of_fold`
    of those training photographs that are `judged` (indices), and `valid` of all to validate, of
    which those `unseen` (indices) are no copies, neither of training photographs nor of each other.
    """

    head: bytes
    calibration: dict[str, Any]
    judged: np.ndarray
    out_of_fold: np.ndarray
    valid: np.ndarray
    unseen: np.ndarray
    training_novelty: np.ndarray
    valid_novelty: np.ndarray

    @classmethod
    def of(cls, model: Any, settings: TrainSettings, data: heads.TrainingData) -> Fitted:
        model = heads.without_optimizer(model)
        none = np.zeros(0, int), np.zeros((0, data.classes), np.float32)
        data = heads.with_copies(data)
        judged, held_out = heads.out_of_fold(settings.recipe, data, settings.seed) or none
        unseen = data.unseen
        valid = heads.predict(model, data.valid_features)[unseen]
        # Out-of-fold heads and the final one are of one kind: they share the temperature.
        evidence = np.concatenate([held_out, valid])
        truth = np.concatenate([data.labels[judged], data.valid_labels[unseen]])
        temperature, scaled = 1.0, evidence
        if len(truth) >= calibration.LEAST_EVIDENCE:
            temperature = calibration.temperature(evidence, truth)
            scaled = calibration.cross_fitted(evidence, truth, settings.seed)
        about = {
            "source": "cross-validation" if len(judged) else "validation",
            "photographs": len(truth),
            "copies": _copies_left_out(data),
            "temperature": temperature,
            "ece_before": calibration.expected_error(evidence, truth),
            "ece_after": calibration.expected_error(scaled, truth),
            "bins": calibration.bins(scaled, truth),
        }
        heads.set_temperature(model, temperature)
        found = novelty.fit(model, data, settings.seed)
        model = novelty.attached(model, data, found)
        held_out = calibration.at_temperature(held_out, temperature)
        final = heads.predict(model, data.valid_features)
        valid, valid_novelty = final[:, :-1], final[:, -1]
        head = classifier.head_bytes(model)
        training_novelty = found.of_training[judged]
        return cls(*(head, about, judged, held_out, valid, unseen, training_novelty, valid_novelty))


def _copies_left_out(data: heads.TrainingData) -> dict[str, int]:
    """How many photographs of each split are no evidence, since others stand for them."""
    different = copies.first_of_each(data.groups_to_train)
    return {
        "train": len(data.labels) - len(different),
        "valid": len(data.valid_labels) - len(data.unseen),
    }


class _Checkpoint:
    """The model after each epoch, so that a killed trainer goes on where it was.

    ``progress.json`` names the epoch's model and is written after it.
    """

    def __init__(self, out: Folder, config_fingerprint: str) -> None:
        self.out, self.config_fingerprint = out, config_fingerprint

    def history(self) -> list[dict[str, float]]:
        """The epochs that an earlier run of the same configuration did."""
        try:
            progress = json.loads(self.out.read(f"{CHECKPOINT}/progress.json"))
            same = progress["config_fingerprint"] == self.config_fingerprint
            return progress["history"] if same else []
        except (OSError, ValueError, KeyError):
            return []

    def load(self) -> tuple[list[dict[str, float]], heads.Progress | None]:
        """History and model of an earlier run of the same configuration; empty without one.

        Raises:
            FlowerrayError: the model holds what no recipe makes.
        """
        history = self.history()
        if not history:
            return [], None
        try:
            model = self._model(len(history), compile=True)
        except (OSError, ValueError, KeyError):
            return [], None
        return history, heads.Progress(len(history), model)

    def model_after(self, epoch: int) -> Any:
        """The model after the best epoch, counted from 1.

        Raises:
            FlowerrayError: it holds what no recipe makes.
        """
        return self._model(epoch)

    def _model(self, epoch: int, compile: bool = False) -> Any:
        name = f"{CHECKPOINT}/{epoch}.keras"
        head, file = self.out.read(name), self.out.file(name)
        try:  # as a classifier's: who may write here need not be who trains
            classifier.check_layers(head, file)
        except FlowerrayError as error:
            raise FlowerrayError(f"{error}; remove it to train anew") from None
        return open_head(head, compile=compile)

    def save(self, history: list[dict[str, float]], model: Any) -> None:
        """Make `model`, after ``len(history)`` epochs, the one to go on from."""
        self.out.write(f"{CHECKPOINT}/{len(history)}.keras", classifier.head_bytes(model))
        progress = {"config_fingerprint": self.config_fingerprint, "history": history}
        self.out.write(f"{CHECKPOINT}/progress.json", json.dumps(progress).encode())
        for epoch in range(1, len(history)):
            if epoch != _best(history):
                self.out.tidy(f"{CHECKPOINT}/{epoch}.keras")


@dataclass(frozen=True)
class _Loaded:
    data: heads.TrainingData
    classes: list[str]
    uris: dict[str, list[str]]  # of each split
    base_spec: BaseSpec


def _load(outputs: list[Output], corrected: dict[str, str | None], directory: Path) -> _Loaded:
    """Stream the shards into one array on disk, so that features may be larger than memory."""
    columns = ["label", "split", "error", "uri"]
    labels = pa.concat_tables(shards.read_table(output, columns) for output in outputs)
    names = [corrected.get(u, n) for u, n in zip(*_columns(labels, "uri", "label"), strict=True)]
    labels = labels.set_column(0, "label", pa.array(names, pa.string()))
    usable = pc.and_(pc.is_null(labels["error"]), pc.is_valid(labels["label"]))
    labels = labels.filter(usable)
    classes = sorted(labels["label"].unique().to_pylist())
    split = labels["split"].to_numpy(zero_copy_only=False)
    indices = pc.index_in(labels["label"], pa.array(classes)).to_numpy()

    spec, shape, filled, read = None, None, 0, 0
    features: dict[str, np.memmap] = {}
    for table in chain.from_iterable(map(shards.iter_shards, outputs)):
        about = json.loads(table.schema.metadata[b"flowerray"])
        found = BaseSpec.from_dict(about["config"]["base_spec"])
        if spec is not None and found != spec:
            raise FlowerrayError(
                f"{outputs[0].folder} mixes features of two makes ({spec.differences(found)} in "
                f"shards/{Shard(table['image_id'][0].as_py(), len(table)).name}): extract again "
                "into an empty directory"
            )
        spec, shape = found, tuple(json.loads(table.schema.metadata[b"feature_shape"]))
        keep = usable.slice(read, len(table))
        read += len(table)
        kept = pc.sum(keep).as_py() or 0
        for copy in {"features", "features_mirrored"} & set(table.column_names):
            column = table[copy].filter(keep).combine_chunks()
            if copy not in features:
                whole = (len(labels), *shape)
                features[copy] = np.memmap(directory / copy, np.float16, "w+", shape=whole)
            features[copy][filled : filled + kept] = column.flatten().to_numpy().reshape(-1, *shape)
        filled += kept
    assert spec is not None
    parts = {part: split == part for part in ("train", "valid")}
    # Rows of a split are taken as a slice where they lie together, as they do in the article's
    # layout, and else copied to a second file.
    mirrored = None
    if "features_mirrored" in features:
        mirrored = _rows(features["features_mirrored"], parts["train"], directory / "mirrored")
    data = heads.TrainingData(
        _rows(features["features"], parts["train"], directory / "train"),
        indices[parts["train"]],
        _rows(features["features"], parts["valid"], directory / "valid"),
        indices[parts["valid"]],
        len(classes),
        mirrored,
    )
    uris = {part: labels["uri"].filter(pa.array(rows)).to_pylist() for part, rows in parts.items()}
    return _Loaded(data, classes, uris, spec)


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def _rows(features: np.ndarray, chosen: np.ndarray, file: Path) -> np.ndarray:
    rows = np.flatnonzero(chosen)
    if rows[-1] - rows[0] + 1 == len(rows):
        return features[rows[0] : rows[-1] + 1]
    copied = np.memmap(file, features.dtype, "w+", shape=(len(rows), *features.shape[1:]))
    for start in range(0, len(rows), 1024):
        copied[start : start + 1024] = features[rows[start : start + 1024]]
    return copied


def _check_classes(output: Output, photographs: pa.Table) -> None:
    """Refuse `photographs` (label, split, error, error_detail) of which a class has none to train
    on or to validate."""
    where = output.folder
    labelled = photographs.filter(pc.is_valid(photographs["label"]))
    classes = sorted(labelled["label"].unique().to_pylist())
    if not classes:
        raise FlowerrayError(
            f"{where} has no labelled photographs: extract a folder of classes, or a table with "
            "columns uri and label"
        )
    if len(classes) == 1:
        raise FlowerrayError(f"{where} has only one class, {classes[0]!r}: two are needed")
    usable = labelled.filter(pc.is_null(labelled["error"]))
    all_of, there = shards.counted(labelled["label"]), shards.counted(usable["label"])
    for name in classes:
        if name not in there:
            bad = labelled.filter(pc.equal(labelled["label"], name))
            raise FlowerrayError(
                f"class {name!r} of {where}: all {all_of[name]:,} photographs rejected, "
                f"{_reasons(bad)}: convert or replace them, or remove the class, and extract again"
            )
    for part, purpose in (("train", "train on"), ("valid", "validate")):
        counts = shards.counted(usable.filter(pc.equal(usable["split"], part))["label"])
        for name in classes:
            if name in counts:
                continue
            bad = labelled.filter(
                pc.and_(pc.equal(labelled["label"], name), pc.equal(labelled["split"], part))
            )
            why = f" ({len(bad):,} rejected, {_reasons(bad)})" if len(bad) else ""
            raise FlowerrayError(
                f"class {name!r} of {where} has no readable photographs to {purpose}{why}: add some"
            )


def _reasons(rejected: pa.Table) -> str:
    """Why photographs are `rejected`: how many for each reason, with what is said of the first."""
    counts = shards.counted(rejected["error"])
    said = []
    for reason in sorted(counts, key=lambda reason: -counts[reason]):
        details = rejected.filter(pc.equal(rejected["error"], reason))["error_detail"]
        detail = details.drop_null().slice(0, 1).to_pylist()
        said.append(f"{counts[reason]:,} {reason}" + "".join(f" ({one})" for one in detail))
    return ", ".join(said)


def _is_done(out: Folder, config: dict[str, Any]) -> bool:
    there = out.exists("classifier.json")
    lease.check_ours(out, KIND, recorded=there)
    if not there:
        return False
    if classifier.load(str(out)).about["config_fingerprint"] == fingerprint_of(config):
        return True
    raise FlowerrayError(
        f"{out} holds a classifier of other features or settings: choose another --out, "
        "or --overwrite it"
    )


def _save(
    out: HeldFolder,
    output: Output,
    settings: TrainSettings,
    config: dict[str, Any],
    loaded: _Loaded,
    fitted: Fitted,
    history: list[dict[str, float]],
    fit_seconds: float,
) -> None:
    truth, predicted = loaded.data.valid_labels, fitted.valid.argmax(axis=1)
    mistakes = [
        {
            "uri": loaded.uris["valid"][i],
            "original_label": loaded.classes[truth[i]],
            "prediction": loaded.classes[predicted[i]],
            "confidence": round(float(fitted.valid[i, predicted[i]]), 6),
        }
        for i in np.flatnonzero(predicted != truth)
    ]
    mistakes.sort(key=lambda mistake: -mistake["confidence"])
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
        "calibration": fitted.calibration,
        "novelty": {
            "method": novelty.METHOD,
            "reference": novelty.REFERENCE,
            "quantile": novelty.QUANTILE,
        },
        "mistakes": mistakes,
        "fit_seconds": round(fit_seconds, 3),
        "features_fingerprint": output.manifest.fingerprint,
        "config_fingerprint": fingerprint_of(config),
        "head_sha256": hashlib.sha256(fitted.head).hexdigest(),
        "flowerray_version": flowerray.__version__,
    }
    out.write("head.keras", fitted.head)
    with out.create("evidence.parquet") as stream:
        pq.write_table(_evidence(loaded, fitted), stream, compression="zstd")
    if loaded.base_spec.calibration is not None:
        out.write(QUANTISED, output.folder.read(QUANTISED))
    out.write("history.csv", _as_csv(history).encode())
    captions = [
        (m["uri"], f"original {m['original_label']}\nlabel {m['prediction']} {m['confidence']:.3f}")
        for m in mistakes[:GALLERY_PHOTOGRAPHS]
    ]
    title = f"{len(mistakes)} errors of {len(truth)}, most confident first"
    out.write("errors.png", gallery.draw(captions, title))
    out.write("classifier.json", json.dumps(about, indent=2).encode())


def _evidence(loaded: _Loaded, fitted: Fitted) -> pa.Table:
    """See ``flowerray.classifier.EVIDENCE``."""
    data, judged, unseen = loaded.data, fitted.judged, fitted.unseen
    trained_on = [loaded.uris["train"][i] for i in judged]
    parts = [
        ("train", trained_on, data.labels[judged], fitted.out_of_fold, fitted.training_novelty),
        (
            "valid",
            [loaded.uris["valid"][i] for i in unseen],
            data.valid_labels[unseen],
            fitted.valid[unseen],
            fitted.valid_novelty[unseen],
        ),
    ]
    names = np.array(loaded.classes, object)
    tables = []
    for part, uris, truth, probabilities, novel in parts:
        columns = [
            pa.array(uris, pa.string()),
            pa.array([part] * len(truth), pa.string()),
            pa.array(names[truth], pa.string()),
            pa.array(names[probabilities.argmax(axis=1)], pa.string()),
            pa.array(probabilities.max(axis=1), pa.float32()),
            pa.array(list(probabilities.astype(np.float32)), pa.list_(pa.float32())),
            pa.array(novel, pa.float32()),
        ]
        tables.append(pa.table(columns, schema=classifier.EVIDENCE))
    return pa.concat_tables(tables)


def _as_csv(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *history[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **numbers} for i, numbers in enumerate(history, start=1))
    return text.getvalue()
