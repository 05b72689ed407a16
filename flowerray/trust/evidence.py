"""What heads say of photographs that they were not fitted on: what all trust rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.heads import classifier, copies
from flowerray.heads.data import TrainingData, rows_of
from flowerray.heads.dense import DENSE
from flowerray.heads.dense_head import DenseHead
from flowerray.heads.embedding import embedded, embedding_model
from flowerray.heads.folds import held_out as held_out_of
from flowerray.heads.folds import out_of_fold, with_copies
from flowerray.heads.models import predict, set_temperature, without_optimizer
from flowerray.heads.training_set import TrainingSet
from flowerray.settings import TrainSettings
from flowerray.trust import calibration, novelty


@dataclass(frozen=True)
class Fitted:
    """The head as it is saved, for numpy too where it is `dense`, and what heads fitted without
    them say of photographs: `out_of_fold` of those training photographs that are `judged`
    (indices), and `valid` of all to validate, of which those `unseen` (indices) are no copies,
    neither of training photographs nor of each other.
    """

    head: bytes
    dense: DenseHead | None
    calibration: dict[str, Any]
    judged: np.ndarray
    out_of_fold: np.ndarray
    valid: np.ndarray
    unseen: np.ndarray
    audited: np.ndarray
    training_novelty: np.ndarray
    valid_novelty: np.ndarray

    @classmethod
    def of(cls, heads: list[Any], settings: TrainSettings, data: TrainingData) -> Fitted:
        """From the Keras models that were fitted on ``flowerray.heads.folds.parts``."""
        *of_folds, last = heads
        model = without_optimizer(last)
        none = np.zeros(0, int), np.zeros((0, data.classes), np.float32)
        data = with_copies(data)
        judged, held_out = out_of_fold(settings.recipe, data, settings.seed, of_folds) or none
        unseen = data.unseen
        valid = predict(model, data.valid_features)[unseen]
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
        set_temperature(model, temperature)
        found = novelty.fit(model, data, settings.seed)
        model = novelty.attached(model, data, found)
        held_out = calibration.at_temperature(held_out, temperature)
        audited = calibration.at_temperature(_of_audited(data, settings), temperature)
        final = predict(model, data.valid_features)
        valid, valid_novelty = final[:, :-1], final[:, -1]
        head = classifier.head_bytes(model)
        dense = None
        if data.embedded and settings.recipe in DENSE:
            dense = DenseHead.of(model, found.centres, found.threshold)
        sets = (judged, held_out, valid, unseen, audited, found.of_training, valid_novelty)
        return cls(head, dense, about, *sets)


def _of_audited(data: TrainingData, settings: TrainSettings) -> np.ndarray:
    """What heads that were fitted without them say of the `audited` photographs, float32 (m,
    classes); of a recipe that takes too long nothing."""
    fit = DENSE.get(settings.recipe)
    if fit is None or not len(data.audited):
        return np.zeros((0, data.classes), np.float32)
    own, _ = embedded(data, embedding_model(data))
    rows, labels, weights = rows_of(data, own, None, np.arange(len(own)))
    audited, groups = data.audited, data.groups_to_train
    return held_out_of(fit, rows, labels, weights, audited, settings.seed, groups)


def _copies_left_out(data: TrainingData) -> dict[str, int]:
    """How many photographs of each split are no evidence, since others stand for them."""
    different = copies.first_of_each(data.groups_to_train)
    return {
        "train": len(data.labels) - len(different),
        "valid": len(data.valid_labels) - len(data.unseen),
    }


def evidence_table(loaded: TrainingSet, fitted: Fitted) -> pa.Table:
    """See ``flowerray.heads.classifier.EVIDENCE``."""
    data, judged, unseen = loaded.data, fitted.judged, fitted.unseen
    trained_on = [loaded.uris["train"][i] for i in judged]
    parts = [
        (
            "train",
            trained_on,
            data.labels[judged],
            fitted.out_of_fold,
            fitted.training_novelty[judged],
            data.features[judged] if data.embedded else None,
        ),
        (
            "valid",
            [loaded.uris["valid"][i] for i in unseen],
            data.valid_labels[unseen],
            fitted.valid[unseen],
            fitted.valid_novelty[unseen],
            data.valid_features[unseen] if data.embedded else None,
        ),
    ]
    if len(fitted.audited):
        drawn = data.audited
        parts.append(
            (
                "pile",
                [loaded.uris["train"][i] for i in drawn],
                data.labels[drawn],
                fitted.audited,
                fitted.training_novelty[drawn],
                data.features[drawn] if data.embedded else None,
            )
        )
    names = np.array(loaded.classes, object)
    tables = []
    for part, uris, truth, probabilities, novel, rows in parts:
        columns = [
            pa.array(uris, pa.string()),
            pa.array([part] * len(truth), pa.string()),
            pa.array(names[truth], pa.string()),
            pa.array(names[probabilities.argmax(axis=1)], pa.string()),
            pa.array(probabilities.max(axis=1), pa.float32()),
            pa.array(list(probabilities.astype(np.float32)), pa.list_(pa.float32())),
            pa.array(novel, pa.float32()),
            pa.nulls(len(truth), pa.list_(pa.float16())) if rows is None else _lists(rows),
        ]
        tables.append(pa.table(columns, schema=classifier.EVIDENCE))
    return pa.concat_tables(tables)


def _lists(rows: np.ndarray) -> pa.ListArray:
    """`rows` (n, width), a list each."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.asarray(rows).ravel()))
