"""A map of a pile: its embeddings in two dimensions, those that look alike near each other."""

from __future__ import annotations

import numpy as np

MOST = 5_000  # photographs on the map, drawn at random: t-SNE takes half a minute for them
COMPONENTS = 50  # principal ones, that t-SNE looks at
PERPLEXITY = 30.0


def sample(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """At most MOST of `rows`, drawn at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])


def in_two_dimensions(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """Points float32 (n, 2) of `embeddings` float (n, width): t-SNE of their principal components,
    as scikit-learn has it (van der Maaten and Hinton 2008,
    https://jmlr.org/papers/v9/vandermaaten08a.html). What is near is alike; distances between
    groups mean little."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(embeddings) < 4:
        return np.zeros((len(embeddings), 2), np.float32)
    values = np.asarray(embeddings, np.float32)
    width = min(COMPONENTS, *values.shape)
    components = PCA(width, random_state=seed).fit_transform(values)
    scatter = TSNE(
        perplexity=min(PERPLEXITY, (len(values) - 1) / 3), init="pca", random_state=seed
    ).fit_transform(components)
    return scatter.astype(np.float32)
