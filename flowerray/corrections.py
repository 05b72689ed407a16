"""What people say of photographs that they looked at: a table with columns uri and label.

An empty label says that the photograph is none of the classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from flowerray import catalog, names, photographs, shards, stores, tables, uris
from flowerray.bases import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.extract import extract_listed
from flowerray.photographs import Limits, Rejected
from flowerray.progress import say
from flowerray.settings import ExtractSettings, TrainSettings
from flowerray.shards import Output
from flowerray.storage import Folder
from flowerray.tables import LIKELY, Columns

Corrections = dict[str, str | None]  # uri: label, None for none of the classes

ADDED = "added_features"  # in a classifier: of photographs that only its corrections name


def read(path: str, key: str = "uri", columns: Columns = LIKELY) -> Corrections:
    """The labels in the table at `path` by uri; of several for one the last holds. A relative uri
    counts from the table's directory, as in a list of photographs. With the key "file", of a truth,
    they are by the end of a photograph's path, as ``flowerray.uris.key`` has it.

    Of the findings that `flowerray check --out` writes the suggested labels are taken.

    Raises:
        FlowerrayError: there is no such file, or it has other columns.
    """
    at = path if stores.is_remote(path) else os.path.abspath(stores.expanded(path))
    found: Corrections = {}
    for cell, label, place in _rows(at, columns, key):
        if key == "file":
            found[_end_of_path(os.fsdecode(cell))] = label
        else:
            found[uris.of_cell(cell, os.path.dirname(at), place)] = label
    return found


def _end_of_path(written: str) -> str:
    if uris.is_file_uri(written):
        written = os.fsdecode(stores.local_path(written))
    if not stores.is_remote(written):
        written = written.replace("\\", "/").removeprefix("./")
    return uris.key(written)


def _rows(path: str, columns: Columns, uri: str) -> Iterator[tuple[bytes | str, str | None, str]]:
    """The uri, the label and the place in the file of each row."""
    wanted = ("uri", "label", "check", "suggested_label")
    suggested = others = 0
    for rows in tables.read(path, columns, uri, wanted):
        there = rows.schema.names
        if "label" not in there:
            raise FlowerrayError(
                f"{path} has no label column: it should be a table with columns {uri} and label; "
                "--label-column names another"
            )
        findings = {"check", "suggested_label"} <= set(there)
        for row in rows.to_pylist():
            place = tables.at(path, row["row"])
            label = row["label"]
            if findings:
                if row["check"] != "mislabelled" or row["suggested_label"] is None:
                    others += 1
                    continue
                suggested, label = suggested + 1, row["suggested_label"]
            if row["uri"] is None:
                raise FlowerrayError(f"{place} has no {uri}: fill it in or remove the row")
            yield row["uri"], names.class_name(label), place
    if suggested or others:
        say(
            f"{path} holds findings of `flowerray check`: the {suggested:,} suggested labels are "
            f"taken, the {others:,} other findings are not"
        )


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


def with_features(
    output: Output, corrections: Corrections, settings: TrainSettings
) -> Output | None:
    """Features, made as `output`'s are and kept in the classifier, of the photographs in
    `corrections` that `output` lacks; None where it has all. `output` itself is only read.

    Raises:
        FlowerrayError: as ``flowerray.extract``.
    """
    there = set(shards.read_table(output, ["uri"])["uri"].to_pylist())
    new = {u: name for u, name in corrections.items() if name is not None and u not in there}
    if not new:
        return None
    spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
    rows = {"uri": list(new), "label": list(new.values()), "split": ["train"] * len(new)}
    found = pa.table({**rows, "size": [None] * len(new)}).cast(catalog.FOUND)
    out = Folder.at(settings.out).file(ADDED)
    extraction = ExtractSettings(
        images=str(settings.corrections),
        out=out,
        base=spec.base,
        augment=output.run["config"].get("augment"),
        weights="random" if spec.weights == "random" else settings.weights,
        address=settings.address,
        endpoint_url=settings.endpoint_url,
        anonymous=settings.anonymous,
        allow_redirects=settings.allow_redirects,
    )
    # Of an earlier training with other corrections nothing is of use.
    stale = not _is_of(out, found, output)
    done = extract_listed(replace(extraction, overwrite=stale), found.to_batches(), like=output)
    if done.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in done.rejected.items())
        say(
            f"{settings.corrections}: of {len(new):,} photographs that are new, rejected: {reasons}"
        )
    return shards.read_output(out, "features")


def _is_of(out: str, found: pa.Table, like: Output) -> bool:
    """Whether `out` holds features of just the photographs `found`, made as those of `like`."""
    try:
        before = shards.read_output(out, "features")
    except FlowerrayError:
        return False
    same = before.run["config"] == like.run["config"]
    return same and before.manifest.fingerprint == catalog.fingerprint_of(found)


def _is_there(uri: str) -> bool:
    try:
        photographs.read(uri, None, Limits())
    except Rejected:
        return False
    return True
