"""What people should look at next: what is doubted, each unlike the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs import corrections, probabilities, shards
from flowerray.outputs.kinds import kind_of
from flowerray.outputs.record import Output, read_output
from flowerray.outputs.stored import Embeddings, StoredFeatures
from flowerray.settings import SuggestSettings
from flowerray.sources import answers, uris
from flowerray.trust.suggest import suggest as chosen


@dataclass(frozen=True)
class SuggestSummary:
    """Of so many `photographs`, `decided` of them by people, those to look at: `uris`, the most
    telling first, written to `out`; `labels` says where theirs are, if they have some."""

    labels: str | None
    photographs: int
    decided: int
    uris: list[str]
    out: str


def suggest(settings: SuggestSettings) -> SuggestSummary:
    """Choose photographs to look at next, and write them as a table to fill in.

    Raises:
        FlowerrayError: the source is neither features nor labels of stored features, all of it is
            decided, or --out is there.
    """
    if answers.is_asked(settings.out):
        raise UsageError(f"{settings.out} is there: fill that in, or choose another --out")
    likely: np.ndarray | None
    where: str | None
    if kind_of(settings.source) == "labels":
        labels = read_output(settings.source, "labels")
        labels.check_whole()
        stored, listed, likely, decided = _of_labels(labels)
        where = str(labels.folder)
    else:
        stored = StoredFeatures(read_output(settings.source, "features"))
        listed, decided = _of_features(stored)
        likely, where = None, None
    if settings.corrections is not None:
        said = answers.read(settings.corrections, settings.columns)
        known = {uris.key(uri) for uri in said["uri"].to_pylist()}
        decided |= np.array([uris.key(uri) in known for uri in listed.to_pylist()], bool)
    rows = chosen(
        Embeddings(stored, listed),
        likely,
        settings.number,
        settings.seed,
        np.flatnonzero(decided),
    )
    if not len(rows):
        raise FlowerrayError(f"people have decided all of {settings.source}: nothing to suggest")
    found = listed.take(pa.array(rows)).to_pylist()
    answers.ask(settings.out, found)
    return SuggestSummary(where, len(listed), int(decided.sum()), found, settings.out)


def _of_labels(
    labels: Output,
) -> tuple[StoredFeatures, pa.ChunkedArray, np.ndarray, np.ndarray]:
    """The features behind labels, the photographs' uris, the likeliest probabilities of each, and
    which are decided or can't be read."""
    where = labels.run.get("features")
    if where is None:
        raise FlowerrayError(
            f"{labels.folder} was labelled from photographs, of which nothing is stored: label "
            "with --keep-features DIR, then suggest from these labels"
        )
    said = corrections.kept(labels.folder)["uri"].combine_chunks()
    table = shards.read_table(labels, ["uri", "error"])
    decided = pc.or_(pc.is_in(table["uri"], value_set=said), pc.is_valid(table["error"]))
    stored = StoredFeatures(read_output(where, "features"))
    return stored, table["uri"], probabilities.likeliest(labels), decided.to_numpy()


def _of_features(stored: StoredFeatures) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The photographs' uris, and which can't be read."""
    table = shards.read_table(stored.output, ["uri", "error"])
    return table["uri"], pc.is_valid(table["error"]).to_numpy()
