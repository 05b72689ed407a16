"""The manifest that fixes the photographs of an output: their order, labels and split."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError, UsageError
from flowerray.folders import LocalTree, StoredTree, Tree, layout_of, photographs_in_classes
from flowerray.listing import FOUND, is_glob, is_table, photographs_named, photographs_to_label
from flowerray.progress import say
from flowerray.settings import ExtractSettings
from flowerray.storage import Folder, unreadable
from flowerray.stores import expanded, is_remote
from flowerray.tables import is_named_so

# The manifest adds image_id, the row's number, to a photograph as it is found.
MANIFEST = pa.schema([pa.field("image_id", pa.int64(), nullable=False), *FOUND])

DRAWN = {"split": "drawn"}  # metadata of photographs whose split no folder or table names

ROWS_A_GROUP = 8192  # of a manifest file: what an actor reads to learn of one shard
ROWS_A_PART = 1 << 20


@dataclass(frozen=True)
class Shard:
    """A contiguous run of manifest rows: the unit of work, retry and commit."""

    first_row: int
    rows: int

    @property
    def name(self) -> str:
        """The file name that every try at this shard writes."""
        return f"{self.first_row:012d}.parquet"


@dataclass(frozen=True)
class Listing:
    """Photographs listed at one time: the manifest's first rows, or those that an append added.

    `fingerprint` is the sum of its rows' hashes, image_id left out: the same photographs with the
    same labels, split and sizes have the same one, in whatever order and listings they came.
    `retired` rows are no longer there; their hashes' sum is `retired_fingerprint`.
    """

    first_row: int
    rows: int
    shard_size: int
    fingerprint: str
    retired: int = 0
    retired_fingerprint: str = f"{0:032x}"

    @property
    def end(self) -> int:
        """The row after its last."""
        return self.first_row + self.rows


@dataclass(frozen=True)
class Manifest:
    """All photographs of one output, as ``manifest/FIRST-ROW.parquet`` files in its folder."""

    listings: tuple[Listing, ...]

    @property
    def rows(self) -> int:
        """Photographs in all."""
        return sum(listing.rows - listing.retired for listing in self.listings)

    @property
    def end(self) -> int:
        """The row after the last: the image_id of the next photograph."""
        return self.listings[-1].end if self.listings else 0

    @property
    def fingerprint(self) -> str:
        """That of all photographs, however they came to be listed."""
        listed = sum(int(one.fingerprint, 16) for one in self.listings)
        return fingerprint(listed - sum(int(one.retired_fingerprint, 16) for one in self.listings))

    def shards(self) -> list[Shard]:
        """Every shard, in order."""
        return [
            Shard(start, min(listing.shard_size, listing.end - start))
            for listing in self.listings
            for start in range(listing.first_row, listing.end, listing.shard_size)
        ]

    def listing_of(self, shard: Shard) -> Listing:
        """The listing that `shard` is of."""
        return self.listings[bisect_right(self.listings, shard.first_row, key=_first_row_of) - 1]

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "listings": [
                {k: v for k, v in asdict(one).items() if one.retired or "retired" not in k}
                for one in self.listings
            ]
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Manifest:
        """The inverse of `as_dict`."""
        return cls(tuple(Listing(**listing) for listing in fields["listings"]))


def _first_row_of(listing: Listing) -> int:
    return listing.first_row


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
    source, columns = settings.images, settings.columns
    if is_remote(source):
        root = source.rstrip("/")
        named = is_glob(root) or is_named_so(root) or is_table(root)
        tree: Tree | None = None if named else StoredTree(root)
    else:
        root = os.path.abspath(expanded(source))
        tree = LocalTree() if os.path.isdir(root) and not is_table(root) else None
    if tree is None:
        found, root = photographs_named(source, columns), root.rpartition("/")[0]
    elif tree.folders(root):
        found = photographs_in_classes(tree, root, trainable)
    else:  # a flat pile
        yield from photographs_to_label(source)
        return
    # Drawing a split needs all labels at once: a labelled set is small beside the pile.
    table = pa.Table.from_batches(found, FOUND)
    if table["label"].null_count < len(table):
        table = _with_split(_without_test(table, source), root, settings, trainable)
    else:
        say(f"{source} names no classes: no classifier can be trained on it")
    yield from table.to_batches()


def _is_beside_splits(source: str, folder: str) -> bool:
    """Whether a `folder` in the labelled set `source` would be neither a class nor a split."""
    try:
        tree = StoredTree(source) if is_remote(source) else LocalTree()
        layout = layout_of(tree, source)
    except FlowerrayError:  # extract will tell
        return False
    beside = layout.root == source and layout.has_splits
    return beside and f"{source}/{folder}" not in {place for place, _ in layout.places}


def write_listing(
    batches: Iterable[pa.RecordBatch],
    folder: Folder,
    directory: str,
    shard_size: int | None,
    first_row: int = 0,
) -> Listing:
    """Stream `batches` of FOUND into ``directory/FIRST-ROW.parquet`` files of `folder`."""
    total, row = 0, first_row
    for tables in _parts(batches):
        with (
            folder.create(f"{directory}/{row:012d}.parquet") as stream,
            pq.ParquetWriter(stream, MANIFEST, compression="zstd") as writer,
        ):
            for table in tables:
                total += sum_of_hashes(table)
                ids = pa.array(np.arange(row, row + len(table)))
                writer.write_table(table.add_column(0, MANIFEST.field(0), ids))
                row += len(table)
    rows = row - first_row
    return Listing(first_row, rows, shard_size or _shard_size_for(rows), fingerprint(total))


def read_shard(folder: Folder, manifest: Manifest, shard: Shard) -> pa.Table:
    """The manifest rows of `shard`, as MANIFEST; those that were retired are no longer there."""
    listing, tables = manifest.listing_of(shard), [MANIFEST.empty_table()]
    end = shard.first_row + shard.rows
    first_part = shard.first_row - (shard.first_row - listing.first_row) % ROWS_A_PART
    for part in range(first_part, end, ROWS_A_PART):
        with opened_part(folder, f"manifest/{part:012d}.parquet") as file:
            for group in range(file.num_row_groups):
                ids = file.metadata.row_group(group).column(0).statistics
                if ids is None or (ids.max >= shard.first_row and ids.min < end):
                    tables.append(file.read_row_group(group).cast(MANIFEST))
    table = pa.concat_tables(tables)
    ids = table["image_id"]
    inside = pc.and_(pc.greater_equal(ids, shard.first_row), pc.less(ids, end))
    return table.filter(inside)


@contextmanager
def opened_part(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """The file `name` of a manifest or listing.

    Raises:
        FlowerrayError: opening it, or reading in the block, fails.
    """
    try:
        yield pq.ParquetFile(folder.open(name))
    except (OSError, pa.ArrowException) as error:
        mend = "; without it only --overwrite helps"
        raise unreadable(folder.file(name), error, mend) from None


def _shard_size_for(rows: int) -> int:
    """32 to 512: more than 32 shards where there are rows for it, so that actors end together."""
    size = 32
    while size < 512 and rows > 64 * size:
        size *= 2
    return size


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.Table]]:
    """`batches` regrouped: parts of ROWS_A_PART rows, each of tables of ROWS_A_GROUP rows."""
    groups = _regrouped(batches, ROWS_A_GROUP)
    groups_a_part = ROWS_A_PART // ROWS_A_GROUP
    for first in groups:

        def part(first: pa.Table = first) -> Iterator[pa.Table]:
            yield first
            for _, group in zip(range(groups_a_part - 1), groups, strict=False):
                yield group

        yield part()


def _regrouped(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        if count >= rows:
            table = pa.Table.from_batches(waiting, FOUND).combine_chunks()
            whole = count - count % rows
            for start in range(0, whole, rows):
                yield table.slice(start, rows)
            waiting, count = table.slice(whole).to_batches(), count - whole
    if count:
        yield pa.Table.from_batches(waiting, FOUND).combine_chunks()


def fingerprint_of(found: pa.Table) -> str:
    """That of a manifest of the photographs `found`, as FOUND."""
    return fingerprint(sum_of_hashes(found))


def sum_of_hashes(table: pa.Table) -> int:
    """Of the rows' columns that FOUND has."""
    columns = [table[field.name].to_pylist() for field in FOUND]
    return sum(
        int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest(), "little")
        for row in zip(*columns, strict=True)
    )


def fingerprint(total: int) -> str:
    """The name of a sum of rows' hashes."""
    return f"{total % (1 << 128):032x}"


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
