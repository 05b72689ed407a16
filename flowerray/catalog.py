"""Where photographs are found, and the manifest that fixes their order, labels and split."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.progress import say
from flowerray.settings import ExtractSettings
from flowerray.storage import Folder, unreadable
from flowerray.stores import expanded, is_remote, local_uri

# One photograph as it is found; the manifest adds image_id, the row's number.
FOUND = pa.schema(
    [("uri", pa.string()), ("label", pa.string()), ("split", pa.string()), ("size", pa.int64())]
)
MANIFEST = pa.schema([pa.field("image_id", pa.int64(), nullable=False), *FOUND])

DRAWN = {"split": "drawn"}  # metadata of photographs whose split no folder or table names

ROWS_A_GROUP = 8192  # of a manifest file: what an actor reads to learn of one shard
ROWS_A_PART = 1 << 20
HEADER_BYTES = 1 << 16  # of a CSV file: where its columns' names are looked for
SPLIT_FOLDERS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid"}


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
        if labelled and top and top not in SPLIT_FOLDERS:
            with suppress(OSError):
                if stores.source_at(source).names(source) & set(SPLIT_FOLDERS):
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
    found: Iterable[pa.RecordBatch] | None
    if is_remote(settings.images):
        root = settings.images.rstrip("/")
        if _is_named_by_a_file(root) or _is_glob(root):
            found, root = photographs_to_label(root), root.rpartition("/")[0]
        else:
            found = _remote_class_folders(root)
    else:
        root = os.path.abspath(expanded(settings.images))
        if os.path.isdir(root):
            found = _class_folders(root, trainable)
        else:
            found, root = photographs_to_label(settings.images), os.path.dirname(root)
    if found is None:
        yield from photographs_to_label(settings.images)
        return
    # Drawing a split needs all labels at once: a labelled set is small beside the pile.
    table = pa.Table.from_batches(found, FOUND)
    if table["label"].null_count < len(table):
        table = _with_split(table, root, settings, trainable)
    yield from table.to_batches()


def photographs_to_label(source: str) -> Iterator[pa.RecordBatch]:
    """Every file behind `source`: a directory, glob, list or table, here or in a store. Directories
    are streamed.

    Raises:
        FlowerrayError: there is no such thing, or it holds no photographs.
    """
    path = expanded(source)
    if is_remote(source):
        batches = _remote(source)
    elif os.path.isdir(path):
        batches = _files_below(os.path.abspath(path))
    elif os.path.isfile(path):
        batches = _listed_in(os.path.abspath(path))
    elif glob.has_magic(path):
        batches = _batches_of_paths(sorted(glob.iglob(path, recursive=True)))
    else:
        raise FlowerrayError(f"no photographs at {source}: no such file or directory")
    empty = True
    for batch in batches:
        empty = empty and not len(batch)
        yield batch
    if empty:
        raise FlowerrayError(f"no photographs found in {source}")


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


def _batch(
    uris: list[str], sizes: list[int | None], label: str | None = None, split: str | None = None
) -> pa.RecordBatch:
    count = len(uris)
    columns = [uris, [label] * count, [split] * count, sizes]
    return pa.record_batch(
        [pa.array(c, f.type) for c, f in zip(columns, FOUND, strict=True)], FOUND
    )


def _files_below(
    root: str, label: str | None = None, split: str | None = None
) -> Iterator[pa.RecordBatch]:
    """All regular files below `root`, hidden ones aside: a directory's own, sorted, then those of
    its sorted subdirectories. Symbolic links are followed, but never around in a circle."""
    yield from _walk(os.fsencode(root), label, split, frozenset())


def _walk(
    directory: bytes, label: str | None, split: str | None, above: frozenset[tuple[int, int]]
) -> Iterator[pa.RecordBatch]:
    subdirectories, names, sizes = [], _Column(pa.large_binary()), _Column(pa.int64())
    try:
        status = os.stat(directory)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # a dangling link, say: its row will tell
                    names.append(entry.name)
                    sizes.append(None)
                    continue
                if stat.S_ISDIR(status.st_mode):
                    subdirectories.append(entry.name)
                elif stat.S_ISREG(status.st_mode):  # a pipe or device would block a reader
                    names.append(entry.name)
                    sizes.append(status.st_size)
    except OSError:  # its one row is rejected when it is read, with the reason
        yield _batch([local_uri(directory)], [None], label, split)
        return
    # Of one chunk each: taking rows of several copies all of them, each time.
    files, file_sizes = names.array().combine_chunks(), sizes.array().combine_chunks()
    order = pc.sort_indices(files)
    for start in range(0, len(order), ROWS_A_GROUP):
        chosen = order.slice(start, ROWS_A_GROUP)
        uris = [local_uri(os.path.join(directory, name)) for name in files.take(chosen).to_pylist()]
        yield _batch(uris, file_sizes.take(chosen).to_pylist(), label, split)
    for name in sorted(subdirectories):
        yield from _walk(os.path.join(directory, name), label, split, above | {identity})


class _Column:
    """Values kept as Arrow chunks: ten million names are no Python strings here."""

    def __init__(self, type: pa.DataType) -> None:
        self.type, self.values, self.chunks = type, [], []  # type: ignore[var-annotated]

    def append(self, value: Any) -> None:
        self.values.append(value)
        if len(self.values) == 1 << 16:
            self.chunks.append(pa.array(self.values, self.type))
            self.values = []

    def array(self) -> pa.ChunkedArray:
        return pa.chunked_array([*self.chunks, pa.array(self.values, self.type)], self.type)


def _class_folders(root: str, trainable: bool) -> Iterator[pa.RecordBatch] | None:
    """The photographs of root/CLASS/, or of root/train/CLASS/ and root/valid/CLASS/; None where
    `root` has no folders, and so no classes."""
    top = _subdirectories(root)
    if not top:
        return None
    splits = _splits_in(root, top)
    if splits is None:
        return _classes_in(root, None, trainable)
    return (
        batch
        for folder, split in splits.items()
        for batch in _classes_in(os.path.join(root, folder), split, trainable)
    )


def _splits_in(root: str, folders: list[str]) -> dict[str, str] | None:
    """The split that each of the `folders` of `root` stands for; None where they are classes."""
    splits = {folder: SPLIT_FOLDERS[folder] for folder in folders if folder in SPLIT_FOLDERS}
    if splits and set(splits.values()) != {"train", "valid"}:
        there = next(iter(splits))
        raise FlowerrayError(
            f"{root} has {there}/ but not both train/ and valid/; "
            f"give {root}/{there} itself to have a split drawn"
        )
    return splits or None


def _classes_in(root: str, split: str | None, trainable: bool) -> Iterator[pa.RecordBatch]:
    for name in _subdirectories(root):
        empty = True
        for batch in _files_below(os.path.join(root, name), name, split):
            empty = empty and not len(batch)
            yield batch
        if empty and trainable:
            raise FlowerrayError(
                f"class {name!r} has no photographs in {root}/{name}: add some or remove the folder"
            )


def _subdirectories(root: str) -> list[str]:
    try:
        shown = sorted(name for name in os.listdir(root) if not name.startswith("."))
    except OSError as error:
        raise FlowerrayError(f"can't list {root}: {error.strerror}") from None
    names = [name for name in shown if os.path.isdir(os.path.join(root, name))]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FlowerrayError(
                f"{os.fsencode(name)!r} in {root} is no UTF-8 and so no class: rename the folder"
            ) from None
    return names


def _remote(source: str) -> Iterator[pa.RecordBatch]:
    """The photographs behind `source` in a store."""
    source = source.rstrip("/")
    try:
        if _is_glob(source):
            matches = re.compile(glob_translate(source)).match
            above = source[: re.search(r"[*?\[]", source).start()].rpartition("/")[0]  # type: ignore[union-attr]
            for batch in _remote_files(above):
                yield batch.filter(pa.array([bool(matches(u)) for u in batch["uri"].to_pylist()]))
        elif _is_named_by_a_file(source):
            yield from _listed_in(source)
        else:
            yield from _remote_files(source)
    except (OSError, ValueError) as error:
        raise FlowerrayError(f"can't list {source}: {error}") from None


def _is_glob(uri: str) -> bool:
    return stores.scheme_of(uri) not in stores.WEB_SCHEMES and glob.has_magic(uri)


def _is_named_by_a_file(uri: str) -> bool:
    return os.path.splitext(uri)[1].lower() in (".txt", ".csv", ".parquet", ".pq")


def _remote_files(root: str) -> Iterator[pa.RecordBatch]:
    """All files below `root` in a store, hidden ones aside, in the store's order."""
    for page in stores.source_at(root).files(root):
        shown = [(uri, size) for uri, size in page if "/." not in uri[len(root) :]]
        yield _batch([uri for uri, _ in shown], [size for _, size in shown])


def _remote_class_folders(root: str) -> Iterator[pa.RecordBatch] | None:
    """As `_class_folders`, of a store, in the order that a local directory has."""
    try:
        found = pa.Table.from_batches(_remote_files(root), FOUND)
    except (OSError, ValueError) as error:
        raise FlowerrayError(f"can't list {root}: {error}") from None
    if not len(found):
        raise FlowerrayError(f"no photographs found in {root}")
    files = []
    for uri, size in zip(found["uri"].to_pylist(), found["size"].to_pylist(), strict=True):
        *folders, name = uri[len(root) + 1 :].split("/")
        files.append(([*((1, folder) for folder in folders), (0, name)], uri, size))
    files.sort()
    top = sorted({path[0][1] for path, _, _ in files if len(path) > 1})
    if not top:
        return None
    splits = _splits_in(root, top)
    groups: dict[tuple[str, str | None], list[tuple[str, int | None]]] = {}
    for path, uri, size in files:
        names = [name for _, name in path]
        if splits is None:
            below, split = names, None
        else:
            below, split = names[1:], splits.get(names[0])
        if len(below) > 1 and (splits is None or split):
            groups.setdefault((below[0], split), []).append((uri, size))
    return (
        _batch([uri for uri, _ in rows], [size for _, size in rows], name, split)
        for (name, split), rows in groups.items()
    )


def _listed_in(path: str) -> Iterator[pa.RecordBatch]:
    """The photographs that a .txt list, or a .csv or .parquet table with a uri column, names.

    Relative names count from the file's own directory.
    """
    folder, suffix = path.rpartition("/")[0], os.path.splitext(path)[1].lower()
    if not _is_named_by_a_file(path):
        raise UsageError(
            f"{path} is a file: give a directory, a glob, a .txt list, a .csv or .parquet table"
        )
    try:
        opened = stores.source_at(path).open(path)
    except FileNotFoundError:
        raise FlowerrayError(f"no photographs at {path}: no such file") from None
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        if suffix == ".txt":
            lines = io.TextIOWrapper(io.BufferedReader(opened), encoding="utf-8-sig")
            yield from _batches_of_paths(
                absolute(line.rstrip("\n"), folder) for line in lines if line.strip()
            )
            return
        if suffix == ".csv":
            batches: Iterable[pa.RecordBatch] = _csv(opened, path)
        else:
            file = pq.ParquetFile(opened)
            columns = _columns_of(file.schema_arrow.names, path)
            batches = file.iter_batches(batch_size=ROWS_A_GROUP, columns=columns)
        for batch in batches:
            yield _as_found(batch, path, folder)
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


def _csv(opened: pa.NativeFile, path: str) -> Iterable[pa.RecordBatch]:
    """The columns of a CSV file that FOUND has. Only an empty field is null: NA may be a label."""
    head = opened.read(HEADER_BYTES).decode("utf-8-sig", "replace")
    names = next(csv.reader([line for line in head.splitlines() if line]), [])
    opened.seek(0)
    return pyarrow.csv.open_csv(
        opened,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={f.name: f.type for f in FOUND},
            include_columns=_columns_of(names, path),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _columns_of(names: list[str], table_path: str) -> list[str]:
    """Those of FOUND that a table has."""
    twice = [field.name for field in FOUND if names.count(field.name) > 1]
    if twice:
        raise FlowerrayError(f"{table_path} has two columns {twice[0]}: rename one")
    if not names:
        raise FlowerrayError(f"{table_path} is empty")
    if "uri" not in names:
        raise FlowerrayError(
            f"{table_path} has no uri column: rename one of {', '.join(names)} to uri"
        )
    return [field.name for field in FOUND if field.name in names]


def _as_found(batch: pa.RecordBatch, table_path: str, folder: str) -> pa.RecordBatch:
    uri = batch["uri"].cast(pa.string())
    uris = pa.array([absolute(u, folder) for u in uri.to_pylist() if u], pa.string())
    if len(uris) < len(batch):
        raise FlowerrayError(f"{table_path} has a row without a uri: fill or remove it")
    columns = [uris]
    for field in list(FOUND)[1:]:
        if field.name in batch.schema.names:
            columns.append(batch[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(batch), field.type))
    splits = {s for s in columns[2].unique().to_pylist() if s is not None} - {"train", "valid"}
    if splits:
        raise FlowerrayError(f"{table_path} has split {min(splits)!r}: use train, valid or nothing")
    return pa.record_batch(columns, FOUND)


def absolute(uri: str, folder: str) -> str:
    """`uri` as it stands in a list or table of the directory `folder`, from anywhere."""
    return uri if "://" in uri or uri.startswith("/") else f"{folder}/{uri}"


def _batches_of_paths(paths: Iterable[str]) -> Iterator[pa.RecordBatch]:
    uris: list[str] = []
    for path in paths:
        if "://" in path or not os.path.isdir(path):
            uris.append(path if "://" in path else local_uri(os.fsencode(os.path.abspath(path))))
        if len(uris) == ROWS_A_GROUP:
            yield _batch(uris, [None] * len(uris))
            uris = []
    if uris:
        yield _batch(uris, [None] * len(uris))


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
