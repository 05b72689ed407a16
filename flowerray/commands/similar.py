"""The photographs of a pile that are most like some others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowerray.bases import weights as pretrained
from flowerray.commands.embedder import Embedder, check_used, uri_of
from flowerray.errors import UsageError
from flowerray.outputs.record import read_output
from flowerray.outputs.stored import StoredFeatures
from flowerray.progress import Progress, say
from flowerray.settings import SimilarSettings


@dataclass(frozen=True)
class Like:
    """A photograph of the pile, and the cosine of its embedding with the asked one's: 1 for the
    same."""

    uri: str
    cosine: float


@dataclass(frozen=True)
class Similar:
    """The photographs most like the photograph `uri`, the nearest first; itself is not named."""

    uri: str
    found: list[Like]


def similar(settings: SimilarSettings) -> list[Similar]:
    """Find what in stored features is most like some photographs. Every one is compared: the shards
    are streamed, and of each photograph the nearest so far are kept.

    Raises:
        FlowerrayError: no features, such that are no embeddings, a photograph that can't be read.
    """
    stored = StoredFeatures(read_output(settings.features, "features"))
    if stored.spec.pool != "embedding":
        raise UsageError(
            f"{settings.features} has whole maps, which can't be compared: extract without --pool"
        )
    asked = [uri_of(photograph) for photograph in settings.photographs]
    wanted = _embeddings(stored, asked, settings)
    nearest = np.full((len(asked), settings.number), -np.inf, np.float32)
    names = np.full((len(asked), settings.number), "", object)
    progress = Progress("similar", stored.output.manifest.rows)
    progress.ready(0)
    for shard in stored.output.manifest.shards():
        table = stored.shard(shard.name)
        values, there = stored.values(table)
        uris = np.array(table["uri"].to_pylist(), object)[there]
        cosines = wanted @ values.astype(np.float32).T
        cosines[np.array(asked, object)[:, None] == uris] = -np.inf
        together = np.concatenate([nearest, cosines], axis=1)
        both = np.concatenate([names, np.tile(uris, (len(asked), 1))], axis=1)
        best = np.argsort(-together, axis=1, kind="stable")[:, : settings.number]
        nearest = np.take_along_axis(together, best, axis=1)
        names = np.take_along_axis(both, best, axis=1)
        progress.add(len(table), int((~there).sum()))
    progress.finish()
    return [
        Similar(
            uri,
            [
                Like(name, round(float(cosine), 6))
                for name, cosine in zip(*one, strict=True)
                if np.isfinite(cosine)
            ],
        )
        for uri, *one in zip(asked, names, nearest, strict=True)
    ]


def _embeddings(stored: StoredFeatures, asked: list[str], settings: SimilarSettings) -> np.ndarray:
    """Those of the `asked` photographs, float32 (n, width) of unit length; what is stored isn't
    computed."""
    found = np.zeros((len(asked), stored.width), np.float32)
    others = []
    for row, uri in enumerate(asked):
        if uri in stored:
            name, place = stored.place(uri)
            values, there = stored.values(stored.shard(name).slice(place, 1))
            if there.all():
                found[row] = values[0]
                continue
        others.append(row)
    if others:
        weights = pretrained.checked(stored.spec, settings.weights, say)
        embedder = Embedder(stored.spec, stored.output.folder, weights, settings.limits)
        names = [asked[row] for row in others]
        for row, name, features in zip(others, names, embedder.features(names), strict=True):
            found[row] = check_used(name, features)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
