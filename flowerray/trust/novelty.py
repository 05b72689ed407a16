"""How far a photograph lies from all that a head was trained on.

The distance is one minus the cosine to the nearest neighbour, in embeddings of unit length, as in
Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest Neighbors" (ICML 2022). The
training photographs are stood for by a few k-means centres a class, so that a head stays small.
It is told in units of a threshold: training photographs, each measured against centres made without
it and its copies, stay below 1 in all but a hundredth of cases, copies counted once. Nothing but
training photographs sets it. Assumed is that photographs to come are drawn as these were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerray.heads import copies
from flowerray.heads.data import TrainingData
from flowerray.heads.dense import one_thread
from flowerray.heads.embedding import embedding
from flowerray.heads.folds import folds, with_copies
from flowerray.heads.models import predict

METHOD = "1 - cosine to the nearest of k-means centres of the training embeddings"
REFERENCE = "Sun et al. 2022, https://proceedings.mlr.press/v162/sun22d.html"
CENTRES_A_CLASS = 8
QUANTILE = 0.99
FARTHEST = 2.0  # that 1 - cosine can be


@dataclass(frozen=True)
class Novelty:
    """`centres` (centres, width) float32 of unit length; the `threshold` that counts as 1; and the
    training photographs' own novelty, each measured against centres made without it and its
    copies, (n,); 0 for a class' only one."""

    centres: np.ndarray
    threshold: float
    of_training: np.ndarray


def fit(model: Any, data: TrainingData, seed: int) -> Novelty:
    """Learn what is near from the training photographs' embeddings in `model`."""
    import keras

    embedder = keras.Model(model.inputs[0], embedding(model, data))
    embedded = predict(embedder, data.features)
    distances = np.full(len(embedded), np.nan)
    groups = with_copies(data).groups_to_train
    for train, held in folds(data.labels, seed, groups):
        centres = _centres(embedded[train], data.labels[train], seed)
        distances[held] = 1 - (embedded[held] @ centres.T).max(axis=1)
    # A class' only photograph can't be measured; with nothing else there is nothing to go by.
    different = distances[copies.first_of_each(groups)]
    known = different[~np.isnan(different)]
    threshold = max(float(np.quantile(known, QUANTILE)), 1e-3) if len(known) else FARTHEST
    novel = np.nan_to_num(distances / threshold)
    return Novelty(_centres(embedded, data.labels, seed), threshold, novel)


def attached(model: Any, data: TrainingData, novelty: Novelty) -> Any:
    """`model` with the novelty as one column more, after the probabilities."""
    import keras

    # Names of their own: Keras' numbered ones may be taken in a model that was loaded.
    near = keras.layers.Dense(len(novelty.centres), use_bias=False, name="centres")
    cosines = near(embedding(model, data))
    near.set_weights([novelty.centres.T])
    cosines = keras.layers.Reshape((len(novelty.centres), 1), name="cosines")(cosines)
    nearest = keras.layers.GlobalMaxPooling1D(name="nearest")(cosines)
    scale = 1 / novelty.threshold
    scaled = keras.layers.Rescaling(-scale, scale, name="novelty")(nearest)
    outputs = keras.layers.Concatenate(name="outputs")([model.outputs[0], scaled])
    return keras.Model(model.inputs[0], outputs, name=model.name)


def _centres(embedded: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """k-means centres of each class, brought back to unit length."""
    from sklearn.cluster import MiniBatchKMeans

    found = []
    with one_thread():
        for label in np.unique(labels):
            rows = embedded[labels == label]
            means = MiniBatchKMeans(min(CENTRES_A_CLASS, len(rows)), n_init=3, random_state=seed)
            found.append(means.fit(rows).cluster_centers_)
    centres = np.concatenate(found)
    norms = np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres / np.maximum(norms, 1e-12)).astype(np.float32)
