"""What to look at next: photographs that the classifier doubts, each unlike the others."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from flowerray.heads.dense import one_thread

SAMPLE = 20_000  # photographs that are clustered, at least; and so many for each wanted:
SAMPLED_FOR_EACH = 20
MOST_CLUSTERS = 300  # of one k-means: its time grows with their square
ROUNDS = 20  # of k-means, which moves little after them
LEAST_DOUBT = 1e-6  # so that a classifier that is sure of everything still suggests something
BLOCK = 1 << 16  # rows of probabilities at once


def suggest(
    embeddings: Any,
    probabilities: np.ndarray | None,
    number: int,
    seed: int,
    decided: np.ndarray | None = None,
) -> np.ndarray:
    """Rows of the pile that people should look at next, the one that stands for most doubt first.

    k-means with as many centres as photographs are wanted, in which each weighs as much as it is
    doubted; of each cluster the one nearest to its centre (Zhdanov 2019, "Diverse mini-batch Active
    Learning", https://arxiv.org/abs/1901.05954, without its choice beforehand). Doubt is one less
    the margin between the two likeliest answers (Scheffer et al. 2001). So doubt and variety need
    no balance to be set: a head that knows little doubts everything, and the centres spread over
    the whole pile; one that knows much gathers them where it errs. Without a head all weigh the
    same, and the choice is of typical photographs of clusters, those where nothing is decided yet
    first, and of these the large ones (TypiClust, Hacohen et al. 2022,
    https://proceedings.mlr.press/v162/hacohen22a.html; the nearest to the centre in place of the
    densest, which did no better on flowers).

    Of a large pile SAMPLE rows are clustered, or SAMPLED_FOR_EACH times `number`, drawn by doubt
    and weighed so that they stand for all of it; more than MOST_CLUSTERS are sought in parts of
    that sample. So neither time nor memory grows with the pile beyond a look at
    its probabilities. Measured by ``benchmarks/teaching.py``.

    The rows are no random sample: they teach, and are no evidence of any precision.

    Args:
        embeddings: float (n, width), of unit length, any that indexes like an array; rows that
            aren't sampled are not read.
        probabilities: float (n, answers), or only the likeliest few of each row, in any order;
            `none` counts as an answer. None: there is no head yet.
        number: how many are wanted.
        decided: row indices that people have judged, and any others that must not return.
    Returns:
        int64 (at most number,), different rows, fewer where fewer are undecided.
    Raises:
        ValueError: embeddings and probabilities aren't of the same rows, or `number` is below 0.
    """
    if number < 0:
        raise ValueError(f"{number} photographs can't be suggested")
    if probabilities is not None and len(probabilities) != len(embeddings):
        raise ValueError(f"{len(embeddings)} embeddings, {len(probabilities)} probabilities")
    chance = np.random.default_rng(seed)
    decided = np.unique(np.zeros(0, int) if decided is None else np.asarray(decided, int))
    undecided = np.setdiff1d(np.arange(len(embeddings)), decided, assume_unique=True)
    if not number or len(undecided) <= number:
        return undecided[:number]
    weights = np.ones(len(undecided))
    if probabilities is not None:
        weights = np.maximum(doubt(probabilities)[undecided], LEAST_DOUBT)
    rows, sampled = _drawn(weights, max(SAMPLE, SAMPLED_FOR_EACH * number), chance)
    passed, _ = _drawn(np.ones(len(decided)), MOST_CLUSTERS, chance)
    known = decided[passed] if probabilities is None else decided[:0]
    parts = math.ceil((number + len(known)) / MOST_CLUSTERS)
    found = []
    for part, mine in enumerate(np.array_split(chance.permutation(len(rows)), parts)):
        wanted = number * (part + 1) // parts - number * part // parts
        here = np.asarray(embeddings[undecided[rows[mine]]], np.float32)
        there = np.asarray(embeddings[known[part::parts]], np.float32)
        found.append(rows[mine[_spread(here, sampled[mine], there, wanted, seed)]])
    chosen = np.concatenate(found)
    if len(chosen) < number:  # fewer different photographs than wanted
        others = np.setdiff1d(np.arange(len(undecided)), chosen)
        more, _ = _drawn(weights[others], number - len(chosen), chance)
        chosen = np.append(chosen, others[more])
    return undecided[chosen]


def doubt(probabilities: np.ndarray) -> np.ndarray:
    """One less the margin between the two largest of each row of `probabilities` (n, answers):
    float32 (n,), 0 for those that are sure; of a single answer one less its probability."""
    found = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), BLOCK):
        block = np.asarray(probabilities[start : start + BLOCK], np.float32)
        if block.shape[1] > 1:
            block = np.partition(block, block.shape[1] - 2, axis=1)
            margin = block[:, -1] - block[:, -2]
        else:
            margin = block[:, 0]
        found[start : start + BLOCK] = 1 - margin
    return found


def _drawn(
    weights: np.ndarray, number: int, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """At most `number` indices drawn by `weights`, and the weights by which they stand for all:
    priority sampling (Duffield, Lund and Thorup 2007, https://doi.org/10.1145/1314690.1314696)."""
    if len(weights) <= number:
        return np.arange(len(weights)), weights
    priority = weights / (1 - chance.random(len(weights)))
    order = np.argpartition(-priority, number)
    drawn = order[:number]
    return drawn, np.maximum(weights[drawn], priority[order[number]])


def _spread(
    rows: np.ndarray, weights: np.ndarray, decided: np.ndarray, number: int, seed: int
) -> np.ndarray:
    """Indices of at most `number` of `rows` (n, width), the nearest to each centre: of clusters
    without any of `decided` (m, width) first, then of those that weigh most."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    together = np.concatenate([rows, decided])
    heavy = np.append(weights, np.full(len(decided), weights.mean()))
    means = KMeans(
        min(number + len(decided), len(together)), n_init=1, max_iter=ROUNDS, random_state=seed
    )
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies make fewer clusters
        cluster = means.fit(together, sample_weight=heavy).labels_
        apart = np.square(together - means.cluster_centers_[cluster]).sum(axis=1)
    taken, cluster = cluster[len(rows) :], cluster[: len(rows)]
    order = np.lexsort((apart[: len(rows)], cluster))
    clusters, first = np.unique(cluster[order], return_index=True)
    weight = np.bincount(cluster, weights)[clusters]
    best = np.lexsort((-weight, np.isin(clusters, taken)))[:number]
    return order[first[best]]
