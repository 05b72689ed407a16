"""Labels that are probably wrong, by a classifier that is cross-validated on features."""

from __future__ import annotations

import numpy as np

from flowerray.heads.dense import fit_mlp, predict_dense

FOLDS, REPEATS = 5, 3


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
