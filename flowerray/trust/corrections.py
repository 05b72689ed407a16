"""Corrections of what a classifier is trained on, by the photographs that its features have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from flowerray.errors import FlowerrayError
from flowerray.heads import none
from flowerray.outputs import shards
from flowerray.outputs.record import Output
from flowerray.progress import say, some_of
from flowerray.settings import TrainSettings
from flowerray.sources import names, photographs, uris
from flowerray.sources.answers import Corrections
from flowerray.sources.photographs import Limits, Rejected

LEAST_OF_A_CLASS = 10  # photographs with which a class that people named becomes one


def matched(
    output: Output, corrections: Corrections, settings: TrainSettings, stored: Container[str] = ()
) -> tuple[Corrections, dict[str, int]]:
    """`corrections` by the uris that `output` has, however they are spelled, and by their own for
    photographs that it lacks, such as those of a pile, which may be `stored`; and how many of them
    do nothing, by why. Of a class that the features don't have fewer than LEAST_OF_A_CLASS are left
    out, which is said.

    Raises:
        FlowerrayError: photographs to learn from are neither in the features nor stored nor to be
            read.
    """
    table = shards.read_table(output, ["uri", "label"])
    classes = set(map(names.class_name, table["label"].unique().to_pylist()))
    there = table["uri"].to_pylist()
    known, spelled = set(there), {uris.key(uri): uri for uri in there}
    found = {
        uri if uri in known else spelled.get(uris.key(uri), uri): label
        for uri, label in corrections.items()
    }
    unknown = len([u for u, name in found.items() if name is None and u not in known])
    if unknown == len(found):
        raise FlowerrayError(
            f"none of the {unknown:,} photographs of {settings.corrections} is in {output.folder}, "
            f"such as {next(iter(found))}: correct their uris"
        )
    named = {*classes, *none.names_of(settings.none_class), None}
    new = Counter(name for name in found.values() if name not in named)
    few = {name: count for name, count in new.items() if count < LEAST_OF_A_CLASS}
    told = [
        f"train: {name} is no class of {output.folder}: with {LEAST_OF_A_CLASS - count} "
        f"photographs more than the {count} in {settings.corrections} it becomes one; "
        "until then they are left out"
        for name, count in sorted(few.items(), key=str)
    ]
    for line in some_of(told, str(settings.corrections)):
        say(line)
    found = {uri: None if label in few else label for uri, label in found.items()}
    lost = [
        uri
        for uri, name in found.items()
        if name is not None and uri not in known and uri not in stored and not _is_there(uri)
    ]
    if lost:
        raise FlowerrayError(
            f"{settings.corrections} has {len(lost):,} photographs that are neither in "
            f"{output.folder} nor to be read, such as {lost[0]}: correct their uris, or remove the "
            "rows"
        )
    left_out = {
        f"of classes with fewer than {LEAST_OF_A_CLASS} photographs": sum(few.values()),
        "without a label, of photographs that the features lack": unknown,
    }
    return found, {why: count for why, count in left_out.items() if count}


def _is_there(uri: str) -> bool:
    try:
        photographs.read(uri, None, Limits())
    except Rejected:
        return False
    return True
