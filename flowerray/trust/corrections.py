"""Corrections of what a classifier is trained on, by the photographs that its features have."""

from __future__ import annotations

from flowerray.errors import FlowerrayError
from flowerray.outputs import shards
from flowerray.outputs.record import Output
from flowerray.settings import TrainSettings
from flowerray.sources import names, photographs, uris
from flowerray.sources.answers import Corrections
from flowerray.sources.photographs import Limits, Rejected


def matched(output: Output, corrections: Corrections, settings: TrainSettings) -> Corrections:
    """`corrections` by the uris that `output` has, however they are spelled, and by their own for
    photographs that it lacks.

    Raises:
        FlowerrayError: a label that is no class of the features, or photographs to learn from that
            are neither in the features nor to be read.
    """
    table = shards.read_table(output, ["uri", "label"])
    classes = set(map(names.class_name, table["label"].unique().to_pylist()))
    strange = sorted({name for name in corrections.values() if name is not None} - classes)
    if strange:
        raise FlowerrayError(
            f"{settings.corrections} names {strange[0]!r}, which is no class of {output.folder}: "
            f"take one of {', '.join(sorted(filter(None, classes)))}"
        )
    there = table["uri"].to_pylist()
    known, spelled = set(there), {uris.key(uri): uri for uri in there}
    found = {
        uri if uri in known else spelled.get(uris.key(uri), uri): label
        for uri, label in corrections.items()
    }
    absent = [u for u, name in found.items() if name is not None and u not in known]
    lost = [uri for uri in absent if not _is_there(uri)]
    if lost:
        raise FlowerrayError(
            f"{settings.corrections} has {len(lost):,} photographs that are neither in "
            f"{output.folder} nor to be read, such as {lost[0]}: correct their uris, or remove the "
            "rows"
        )
    unknown = len([u for u, name in found.items() if name is None and u not in known])
    if unknown == len(found):
        raise FlowerrayError(
            f"none of the {unknown:,} photographs of {settings.corrections} is in {output.folder}, "
            f"such as {next(iter(found))}: correct their uris"
        )
    return found


def _is_there(uri: str) -> bool:
    try:
        photographs.read(uri, None, Limits())
    except Rejected:
        return False
    return True
