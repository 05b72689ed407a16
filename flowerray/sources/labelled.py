"""Labelled sets: photographs, their classes, and the split to train on and to validate with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.errors import FlowerrayError, UsageError
from flowerray.progress import Progress, say
from flowerray.settings import ExtractSettings
from flowerray.sources.folders import LocalTree, StoredTree, Tree, layout_of, photographs_in_classes
from flowerray.sources.listing import (
    FOUND,
    LISTING,
    is_glob,
    is_table,
    photographs_named,
    photographs_to_label,
)
from flowerray.sources.tables import is_named_so
from flowerray.stores import expanded, is_remote

DRAWN = {"split": "drawn"}  # metadata of photographs whose split no folder or table names


def check_apart(images: str, written: str, labelled: bool = False) -> None:
    """Refuse to write where `images` are searched for: the next run would find it among them.

    Raises:
        UsageError: the directory or prefix `images` holds `written`, not below a hidden one; of a
            `labelled` set with train/ and valid/, one of these does.
    """
    if is_remote(images) != is_remote(written):
        return
    if is_remote(images):
        pairs = {(images.rstrip("/"), written.rstrip("/"))}
    elif os.path.isdir(expanded(images)):  # by their names and where links lead
        ways = (os.path.abspath, os.path.realpath)
        pairs = {(way(expanded(images)), way(expanded(written))) for way in ways}
    else:
        return
    for source, target in pairs:
        below = target[len(source) :]
        if not (target + "/").startswith(source + "/") or "/." in below:
            continue
        top = below.lstrip("/").partition("/")[0]
        if labelled and top and _is_beside_splits(source, top):
            continue
        raise UsageError(
            f"{written} is inside of {images}, whose files are taken for photographs: choose a "
            "place beside it"
        )


def photographs_to_extract(
    settings: ExtractSettings, trainable: bool = True
) -> Iterator[pa.RecordBatch]:
    """The photographs of a labelled set (or a flat pile), with their labels and split.

    Raises:
        FlowerrayError: nothing is found, or, where the set is to be `trainable`, its classes or
            their split can't be trained on.
    """
    source, columns, progress = settings.images, settings.columns, Progress(LISTING, None)
    if is_remote(source):
        root = source.rstrip("/")
        named = is_glob(root) or is_named_so(root) or is_table(root)
        tree: Tree | None = None if named else StoredTree(root, progress)
    else:
        root = os.path.abspath(expanded(source))
        tree = LocalTree(progress) if os.path.isdir(root) and not is_table(root) else None
    if tree is None:
        found, root = photographs_named(source, columns), root.rpartition("/")[0]
    elif tree.folders(root):
        found = photographs_in_classes(tree, root, trainable)
    else:  # a flat pile
        yield from photographs_to_label(source)
        return
    # Drawing a split needs all labels at once: a labelled set is small beside the pile.
    table = pa.Table.from_batches(found, FOUND)
    progress.finish()
    if table["label"].null_count < len(table):
        table = _with_split(_without_test(table, source), root, settings, trainable)
    else:
        say(f"{source} names no classes: no classifier can be trained on it")
    yield from table.to_batches()


def _is_beside_splits(source: str, folder: str) -> bool:
    """Whether a `folder` in the labelled set `source` would be neither a class nor a split."""
    try:
        progress = Progress(LISTING, None)
        tree = StoredTree(source, progress) if is_remote(source) else LocalTree(progress)
        progress.finish()
        layout = layout_of(tree, source)
    except FlowerrayError:  # extract will tell
        return False
    beside = layout.root == source and layout.has_splits
    return beside and f"{source}/{folder}" not in {place for place, _ in layout.places}


def _without_test(table: pa.Table, source: str) -> pa.Table:
    """`table` less the rows that it gives to a test; with no row to validate with, all splits are
    to be drawn."""
    there = table["split"].unique().to_pylist()
    if "test" in there:
        test = pc.fill_null(pc.equal(table["split"], "test"), False)
        table = table.filter(pc.invert(test))
        count = pc.sum(test).as_py()
        say(
            f"{source}: {count:,} rows of the split test are left out: once trained, label a table "
            "of them alone, then `flowerray evaluate LABELS --truth` that table"
        )
    if "train" in there and "valid" not in there:
        say(f"{source} has no split valid: photographs to validate with are drawn from train")
        splits = pc.if_else(pc.equal(table["split"], "train"), None, table["split"])
        table = table.set_column(2, FOUND.field("split"), splits.cast(pa.string()))
    return table


def _with_split(table: pa.Table, root: str, settings: ExtractSettings, trainable: bool) -> pa.Table:
    """`table` with every row's split, less the rows that the numbers per class leave out.

    The draw sorts each class by a hash of seed and name relative to `root`: the same anywhere,
    and a photograph more moves few others across.
    """
    labels, splits = table["label"].to_pylist(), table["split"].to_pylist()
    classes = sorted({label for label in labels if label is not None})
    if trainable and len(classes) < 2:
        raise FlowerrayError(
            f"only one class, {classes[0]!r}, in {settings.images}: two are needed"
        )
    drawn = np.array(
        [_draw_key(settings.seed, uri.removeprefix(root + "/")) for uri in table["uri"].to_pylist()]
    )
    split = np.array([s or "" for s in splits], dtype=object)
    rows_of: dict[str, list[int]] = {name: [] for name in classes}
    drawn_here = False
    for i, label in enumerate(labels):
        if label is not None:
            rows_of[label].append(i)
    for name in classes:
        members = np.array(rows_of[name])
        members = members[np.argsort(drawn[members], kind="stable")]
        given = {s: [i for i in members if splits[i] == s] for s in ("train", "valid", None)}
        if given[None] and (given["train"] or given["valid"]):
            raise FlowerrayError(
                f"class {name!r} has photographs with and without a split: name it for all or none"
            )
        if given[None]:
            drawn_here = True
            wanted = _valid_count(len(members), settings)
            given = {"valid": given[None][:wanted], "train": given[None][wanted:]}
        for part, limit in (
            ("train", settings.train_per_class),
            ("valid", settings.valid_per_class),
        ):
            flag = f"--{part}-per-class {limit}"
            if limit is not None and len(given[part]) < limit:
                raise FlowerrayError(
                    f"class {name!r} has {len(members)} photographs, "
                    f"{len(given[part])} of them to {part}: too few for {flag}"
                )
            for i in given[part][:limit]:
                split[i] = part
            for i in given[part][limit:] if limit is not None else ():
                split[i] = ""
            if trainable and not given[part]:
                count = "1 photograph" if len(members) == 1 else f"{len(members)} photographs"
                raise FlowerrayError(
                    f"class {name!r} has {count} and none of them to {part}: add some"
                )
    keep = split != ""
    unlabelled = sum(label is None and not s for label, s in zip(labels, splits, strict=True))
    if unlabelled:
        say(f"{settings.images}: {unlabelled} rows without a label are left out")
    table = table.set_column(2, FOUND.field("split"), pa.array(list(split), pa.string()))
    # A draw over more photographs moves a few across; who appends keeps them where they were.
    return table.filter(pa.array(keep)).replace_schema_metadata(DRAWN if drawn_here else None)


def _valid_count(members: int, settings: ExtractSettings) -> int:
    if settings.valid_per_class is not None:
        return settings.valid_per_class
    return min(members - 1, max(1, round(settings.valid_fraction * members)))


def _draw_key(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
