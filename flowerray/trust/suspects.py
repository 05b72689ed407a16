"""Labels that are probably wrong, by a classifier that is cross-validated on features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from flowerray.heads.copies import by_features, joined
from flowerray.heads.dense import fit_mlp, predict_dense
from flowerray.heads.embedding import mean_activation
from flowerray.outputs import shards
from flowerray.outputs.record import Output
from flowerray.outputs.stored import values_of
from flowerray.progress import say, some_names
from flowerray.trust.duplicates import numbered
from flowerray.trust.findings import Finding, LabelledSet

FOLDS, REPEATS = 5, 3


def mislabelled(
    labelled: LabelledSet, embedded: np.ndarray, copies: np.ndarray, notes: list[str]
) -> Iterator[Finding]:
    """Photographs that are probably of another class, the most suspicious first; `copies` (n,) are
    the numbers of groups of them.

    Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", JAIR 70, 2021): out-of-fold probabilities estimate how many photographs of each
    class are labelled as which other ("prune by noise rate", the authors' default), and as many are
    suspected. The least probable label comes first. Of 20 labels swapped among 1,650 photographs
    the first 40 suspects held 15, 14, 15 (seeds 0 to 2) by one cross-validation of mlp heads, 16,
    15, 16 by the mean of three.
    """
    from cleanlab.filter import find_label_issues

    known = zip(labelled.labels, labelled.rejected, strict=True)
    rows = [row for row, (name, bad) in enumerate(known) if name is not None and bad is None]
    named = [str(labelled.labels[row]) for row in rows]
    groups = joined(
        copies[rows],
        by_features(embedded[rows], np.array(numbered(named), np.int64)),
    )
    usable = [
        (labelled.uris[row], name, group, embedded[row])
        for row, name, group in zip(rows, named, groups, strict=True)
    ]
    different = Counter(name for name, _ in {(name, group) for _, name, group, _ in usable})
    classes = sorted(name for name, count in different.items() if count >= FOLDS)
    if len(classes) < len(different):
        few = some_names(sorted(set(different) - set(classes)))
        notes.append(f"{few}: fewer than {FOLDS} different photographs, too few to judge labels")
    judged = [row for row in usable if row[1] in set(classes)]
    if len(classes) < 2:
        notes.append("labels are judged where two classes or more have photographs enough")
        return
    say(f"check: {FOLDS * REPEATS} fits on {len(judged):,} photographs of {len(classes)} classes")
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[name] for _, name, _, _ in judged])
    features = np.stack([feature for *_, feature in judged])
    probabilities = out_of_fold(features, labels, np.array([group for _, _, group, _ in judged]))
    suspects = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    for row in suspects:
        (uri, given, _, _), best = judged[row], int(probabilities[row].argmax())
        own, other = probabilities[row, labels[row]], probabilities[row, best]
        yield Finding(
            "mislabelled",
            uri,
            label=given,
            suggested_label=classes[best],
            score=round(1 - float(own), 6),
            detail=f"{given} {own:.3f}, {classes[best]} {other:.3f}",
        )


def out_of_fold(embedded: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Probabilities float64 (n, classes) of `embedded` (n, d), each the mean of REPEATS mlp heads
    that have seen no photograph of the same group; `labels` and `groups` are (n,) integers."""
    from sklearn.model_selection import StratifiedGroupKFold

    probabilities = np.zeros((len(labels), labels.max() + 1))
    for seed in range(REPEATS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for train, test in folds.split(embedded, labels, groups):
            classes, of_train = np.unique(labels[train], return_inverse=True)
            head = fit_mlp(embedded[train], of_train, np.ones(len(train)), seed)
            probabilities[np.ix_(test, classes)] += predict_dense(head, embedded[test])
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def embed(output: Output) -> np.ndarray:
    """The embeddings of an output of features, float32 (photographs, channels): what was extracted
    as such, or softsign in units of the mean activation, averaged over the map; of unit length,
    zeros where rejected."""
    embedded = output.run["config"]["base_spec"].get("pool") == "embedding"
    scale = 1.0 if embedded else mean_activation(one for one, _ in _features(output))
    parts = []
    for activations, there in _features(output):
        if not embedded:
            activations /= scale
            activations /= 1 + np.abs(activations)
        pooled = activations.mean(axis=tuple(range(1, activations.ndim - 1)))
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        part = np.zeros((len(there), pooled.shape[1]), np.float32)
        part[there] = pooled / np.maximum(length, 1e-6)
        parts.append(part)
    return np.concatenate(parts)


def _features(output: Output) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each shard the features float32 (rows that have them, *feature_shape), and which rows
    those are, bool (rows,)."""
    for table in shards.iter_shards(output, ["features"]):
        values, there = values_of(table)
        yield values.astype(np.float32), there
