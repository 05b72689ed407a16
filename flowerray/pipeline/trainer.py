"""The trainer task: fits a head on feature shards and saves a classifier."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from flowerray import stores
from flowerray.bases import hardware
from flowerray.bases.engines import openvino
from flowerray.bases.engines.keras import import_keras, layers_after
from flowerray.bases.spec import fingerprint_of
from flowerray.heads import classifier, none, tracking
from flowerray.heads.checkpoint import CHECKPOINT, Checkpoint, best_epoch, is_over
from flowerray.heads.classifier import ADDED
from flowerray.heads.dense import DENSE
from flowerray.heads.folds import parts, with_copies
from flowerray.heads.models import freeze_up_to
from flowerray.heads.recipes import EPOCHS, RECIPES
from flowerray.heads.training_set import TrainingSet, load_training_set
from flowerray.outputs.lease import HeldFolder
from flowerray.outputs.record import Output
from flowerray.pipeline import conversion, tasks
from flowerray.pipeline.prepare import QUANTISED
from flowerray.progress import clock, some_names
from flowerray.reports import gallery
from flowerray.settings import TrainSettings
from flowerray.trust import novelty, scores
from flowerray.trust.evidence import Fitted, evidence_table
from flowerray.version import __version__

GALLERY_PHOTOGRAPHS = 60


def fit_and_save(
    access: stores.Access,
    out: HeldFolder,
    output: Output,
    added: Output | None,
    settings: TrainSettings,
    config: dict[str, Any],
    corrected: dict[str, str | None],
    audited: list[str],
    weights: list[np.ndarray] | None,
    resources: dict[str, float],
) -> Iterator[str | tracking.History | tuple[bytes, conversion.Converted]]:
    """The trainer task: yields a line of progress and the history so far after each epoch, leaves
    the classifier, and yields its head as it is and converted where OpenVINO made the features."""
    tasks.set_up_worker(access)
    keras = import_keras(max(1, int(resources["num_cpus"])))
    with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
        loaded = load_training_set(
            [output, *([added] if added else [])],
            corrected,
            none.names_of(settings.none_class),
            Path(directory),
        )
        drawn = np.flatnonzero(np.isin(np.array(loaded.uris["train"], object), audited))
        loaded = replace(loaded, data=with_copies(replace(loaded.data, audited=drawn)))
        data = loaded.data
        if settings.class_weights == "balanced":
            counts = np.bincount(data.labels, minlength=data.classes)
            data = replace(data, class_weights=len(data.labels) / (data.classes * counts))
        if none.NONE in loaded.classes:
            number = loaded.classes.index(none.NONE)
            raised = none.class_weights(data.labels, data.classes, number)
            others = 1.0 if data.class_weights is None else data.class_weights
            data = replace(data, class_weights=others * raised)
        if weights is not None:
            rest = layers_after(loaded.base_spec, weights)
            if settings.from_layer not in (None, loaded.base_spec.layer):
                freeze_up_to(settings.from_layer, rest, loaded.base_spec.layer)
            data = replace(data, rest=rest)
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
                out.remove(ADDED)
        has_epochs = settings.recipe not in DENSE
        fitted_on = parts(settings.recipe, data, settings.seed)
        checkpoint = Checkpoint(out, fingerprint_of(config), len(fitted_on))
        started, history, before = time.perf_counter(), *checkpoint.load()
        models = [progress.model for progress in before if progress]
        if models:
            yield (
                f"train: going on after epoch {len(history)}"
                if has_epochs
                else "train: fitted already, going on"
            )
        recipe = RECIPES[settings.recipe]
        epochs = (settings.epochs or EPOCHS[settings.recipe]) if has_epochs else 1
        runs = [
            recipe(part, epochs, settings.seed, progress)
            for part, progress in zip(fitted_on, before, strict=True)
        ]
        begun, passed = time.perf_counter(), 0
        to_do = (epochs - len(history)) * sum(len(part.labels) for part in fitted_on)
        while len(history) < epochs and not is_over(history, settings.patience):
            what = f"epoch {len(history) + 1} of {epochs}" if has_epochs else "fitted"
            steps: list[tuple[dict[str, float], Any]] = []
            for run in runs:
                steps.append(next(run))
                passed += len(fitted_on[len(steps) - 1].labels)
                left = clock((time.perf_counter() - begun) * (to_do / passed - 1))
                if len(steps) < len(runs):
                    fold = f"fold {len(steps)} of {len(runs) - 1}"
                    yield f"train: {what}, {fold}: {_listed(steps[-1][0])}, {left} left"
            # Where there are folds, what they say of photographs that they have not seen.
            history.append(_means([numbers for numbers, _ in steps[:-1] or steps]))
            models = [model for _, model in steps]
            checkpoint.save(history, models)
            over = f", {left} left" if passed < to_do else ""
            yield f"train: {what}: {_listed(history[-1])}{over}"
            yield history
        if settings.patience and "val_loss" in history[0]:
            models = checkpoint.models_after(best_epoch(history))
            yield f"train: keeping the head of epoch {best_epoch(history)}"
        fit_seconds = time.perf_counter() - started
        fitted = Fitted.of(models, settings, data)
        found = fitted.calibration
        yield from _told_of_copies(loaded, found["copies"])
        yield (
            f"train: calibrated on {found['photographs']:,} photographs ({found['source']}): "
            f"expected error {found['ece_before']:.3f} before, {found['ece_after']:.3f} after"
        )
    _save(out, output, settings, config, loaded, fitted, history, fit_seconds)
    converts = hardware.has_openvino() and keras.backend.backend() == "tensorflow"
    if loaded.base_spec.engine == "openvino" and converts and not fitted.dense:
        yield fitted.head, openvino.convert_head(fitted.head)


def _listed(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _means(of_folds: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in of_folds])) for name in of_folds[0]}


def _told_of_copies(loaded: TrainingSet, left_out: dict[str, int]) -> Iterator[str]:
    """A line for copies that are no evidence, and one for classes that have no evidence."""
    data = loaded.data
    if any(left_out.values()):
        yield (
            f"train: {left_out['train']:,} photographs to train on are copies of others there, "
            f"{left_out['valid']:,} to validate of these or of each other: copies are no evidence"
        )
    assert data.groups is not None
    alone = [
        name
        for index, name in enumerate(loaded.classes)
        if len(np.unique(data.groups_to_train[data.labels == index])) == 1
    ]
    if alone:
        yield (
            f"train: of {some_names(alone)} all photographs to train on are one, or copies of it: "
            "it can't be judged by others; add different ones"
        )


def _save(
    out: HeldFolder,
    output: Output,
    settings: TrainSettings,
    config: dict[str, Any],
    loaded: TrainingSet,
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
    dense = fitted.dense.to_bytes() if fitted.dense else b""
    about = {
        "format": classifier.FORMAT,
        "classes": loaded.classes,
        "feature_shape": list(loaded.data.features.shape[1:]),
        "base_spec": output.run["config"]["base_spec"],
        **({"none_class": none.NONE} if none.NONE in loaded.classes else {}),
        "recipe": settings.recipe,
        "epochs": None if settings.recipe in DENSE else len(history),
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
        **({"dense_sha256": hashlib.sha256(dense).hexdigest()} if dense else {}),
        "flowerray_version": __version__,
    }
    out.write("head.keras", fitted.head)
    if dense:
        out.write("head.npz", dense)
    with out.create("evidence.parquet") as stream:
        pq.write_table(evidence_table(loaded, fitted), stream, compression="zstd")
    if loaded.base_spec.calibration is not None:
        out.write(QUANTISED, output.folder.read(QUANTISED))
    out.write("history.csv", _as_csv(settings, history).encode())
    captions = [
        (m["uri"], f"original {m['original_label']}\nlabel {m['prediction']} {m['confidence']:.3f}")
        for m in mistakes[:GALLERY_PHOTOGRAPHS]
    ]
    title = f"{len(mistakes)} errors of {len(truth)}, most confident first"
    out.write("errors.png", gallery.draw(captions, title))
    out.write("classifier.json", json.dumps(about, indent=2).encode())


def _as_csv(settings: TrainSettings, history: list[dict[str, float]]) -> str:
    """A row an epoch; without a column epoch for recipes that have none, which fit once."""
    text = io.StringIO()
    counted = [] if settings.recipe in DENSE else ["epoch"]
    writer = csv.DictWriter(text, [*counted, *history[0]], "", "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **numbers} for i, numbers in enumerate(history, start=1))
    return text.getvalue()
