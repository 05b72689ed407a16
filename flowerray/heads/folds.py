"""Cross-validation: what heads say of photographs that they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from flowerray.heads import copies
from flowerray.heads.data import TrainingData, rows_of
from flowerray.heads.dense import DENSE, Fit, predict_dense
from flowerray.heads.embedding import embedded, embedding_model
from flowerray.heads.models import predict
from flowerray.heads.rows import Rows

FOLDS = 5
OF_EPOCHS = 2  # for finetune, whose folds then cost what the head of everything does
TURNS = 10  # in which decided photographs are held out: few of them, and each teaches much


def parts(recipe: str, data: TrainingData, seed: int) -> list[TrainingData]:
    """What each head of `recipe` is fitted on, with what it is validated on: everything, the last,
    which is the classifier's; for finetune before it all but one fold of the training photographs
    and that fold, each in turn."""
    found = _folds_of_epochs(data, seed) if recipe == "finetune" else []
    return [*(data.fold(train, held) for train, held in found), data]


def _folds_of_epochs(data: TrainingData, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(folds(data.labels, seed, with_copies(data).groups_to_train, OF_EPOCHS))


def out_of_fold(
    recipe: str, data: TrainingData, seed: int, heads: list[Any] | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices (m,) of training photographs, one for all copies of it, and their probabilities
    float32 (m, classes), each by a head fitted without its fold: of all that `folds` holds out.

    Args:
        heads: the Keras models that were fitted on the folds of `parts`, where there are some.
    Returns:
        None where nothing was held out, as for a recipe that takes too long.
    """
    probabilities = np.full((len(data.labels), data.classes), np.nan, np.float32)
    groups = with_copies(data).groups_to_train
    if fit := DENSE.get(recipe):
        own, mirrored = embedded(data, embedding_model(data))
        for train, held in folds(data.labels, seed, groups):
            rows, labels, weights = rows_of(data, own, mirrored, train)
            probabilities[held] = predict_dense(fit(rows, labels, weights, seed), own[held])
    elif heads:
        for (_, held), head in zip(_folds_of_epochs(data, seed), heads, strict=True):
            probabilities[held] = predict(head, Rows(data.features, held))
    judged = copies.first_of_each(groups)
    judged = judged[~np.isnan(probabilities[judged, 0])]
    return (judged, probabilities[judged]) if len(judged) else None


def folds(
    labels: np.ndarray, seed: int, groups: np.ndarray | None = None, number: int = FOLDS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row indices to fit on and to hold out, for each of `number` folds at most, stratified by
    class, all rows of a group together; every row is held out once, but for what a class has
    nothing beside: its only photograph, or the copies of that."""
    from sklearn.model_selection import StratifiedKFold

    groups = np.arange(len(labels)) if groups is None else groups
    different = copies.first_of_each(groups)
    # A class smaller than that has none in some folds, and at least one in what is fitted on.
    most = int(np.bincount(labels[different]).max())
    if most < 2:
        return
    splitter = StratifiedKFold(min(number, most), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        split = list(splitter.split(np.zeros(len(different)), labels[different]))
    for _, held in split:
        out = np.isin(groups, groups[different[held]])
        lost = np.setdiff1d(labels[out], labels[~out])
        out &= ~np.isin(groups, groups[out & np.isin(labels, lost)])
        if out.any():
            yield np.flatnonzero(~out), np.flatnonzero(out)


def held_out(
    fit: Fit,
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    held: np.ndarray,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """What heads say of those photographs that people decided in the pile, each by a head that was
    fitted on everything but a share of one in TURNS of them, its own among these: evidence for
    thresholds of the head that is fitted on everything.

    Args:
        fit: one of ``flowerray.heads.dense.DENSE``.
        rows: embeddings float32 (n, width) of everything that is trained on.
        labels: class indices (n,), with `none` among the classes.
        weights: of the loss, (n,).
        held: row indices (m,), different ones, of the decided that may be evidence: those drawn at
            random. What was chosen to teach stays in every head.
        groups: numbers (n,), the same for copies of one photograph, which are held out together.
    Returns:
        Probabilities float32 (m, classes), as many as `labels` has; 0 of a class that had nothing
        beside what was held out.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    different, group = np.unique(groups[held], return_inverse=True)
    turn = np.random.default_rng(seed).permutation(len(different)) % TURNS
    probabilities = np.zeros((len(held), int(labels.max()) + 1), np.float32)
    for now in np.unique(turn):
        out = turn[group] == now
        taught = np.flatnonzero(~np.isin(groups, different[turn == now]))
        there, mine = np.unique(labels[taught], return_inverse=True)
        if len(there) < 2:  # nothing to tell apart
            probabilities[np.ix_(out, there)] = 1
            continue
        layers = fit(rows[taught], mine, weights[taught], seed)
        probabilities[np.ix_(out, there)] = predict_dense(layers, rows[held[out]])
    return probabilities


def with_copies(data: TrainingData) -> TrainingData:
    """`data` with the `groups` that its features tell, where nobody looked yet."""
    if data.groups is not None:
        return data
    embedder = embedding_model(data)
    own, mirrored = embedded(data, embedder)
    if len(data.valid_features):
        own = np.concatenate([own, predict(embedder, data.valid_features)])
    labels = np.concatenate([data.labels, data.valid_labels])
    if mirrored is not None:  # there is none of those to validate, which nothing is fitted on
        mirrored = np.concatenate([mirrored, own[len(mirrored) :]])
    return replace(data, groups=copies.by_features(own, labels, mirrored))
