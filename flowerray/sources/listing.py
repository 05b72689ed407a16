"""Where photographs are found: a directory, a glob, a list or a table, here or in a store.

Directories are streamed: a hundred million names are never in memory at once.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.utils import glob_translate

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.progress import Progress
from flowerray.sources import names, tables, text_tables, uris
from flowerray.sources.columns import LIKELY, Columns
from flowerray.stores import credentials, expanded, is_remote, local_uri

# One photograph as it is found.
FOUND = pa.schema(
    [("uri", pa.string()), ("label", pa.string()), ("split", pa.string()), ("size", pa.int64())]
)
ROWS_A_BATCH = 8192
# A split by any of the names that it goes by.
SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "traindata"), "train"),
    **dict.fromkeys(("valid", "validation", "validate", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "testdata"), "test"),
    **dict.fromkeys(("eval", "evaluation", "holdout"), "test"),
}
LISTING = "reading the list"  # what is told of a listing that takes more than a moment
# What systems leave beside photographs, in small letters.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}


def photographs_to_label(source: str, columns: Columns = LIKELY) -> Iterator[pa.RecordBatch]:
    """Every file behind `source`, as FOUND: a directory, glob, list or table, here or in a store.
    What a table says of labels and split counts for nothing.

    Raises:
        FlowerrayError: there is no such thing, or it holds no photographs.
    """
    return _told(source, columns, labelled=False)


def photographs_named(source: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """As `photographs_to_label`, with the labels and split of a table; the split may be test."""
    return _told(source, columns, labelled=True)


def split_named(written: str) -> str | None:
    """The split, train, valid or test, that goes by the name `written`; None if none does."""
    return SPLITS.get(re.sub(r"[\s_-]", "", names.same(written)).casefold())


def is_glob(source: str) -> bool:
    """Whether `source` is a pattern of names."""
    return stores.scheme_of(source) not in stores.WEB_SCHEMES and glob.has_magic(source)


def is_left_out(name: str, folder: bool = False) -> bool:
    """Whether a file or `folder` of this name is hidden or a system's own, and no photograph's."""
    own = SYSTEM_FOLDERS if folder else SYSTEM_FILES
    return name.startswith(".") or name.lower() in own


def batch(
    uris: list[str], sizes: list[int | None], label: str | None = None, split: str | None = None
) -> pa.RecordBatch:
    """Photographs as FOUND, of one `label` and `split`."""
    count = len(uris)
    columns = [uris, [label] * count, [split] * count, sizes]
    return pa.record_batch(
        [pa.array(c, f.type) for c, f in zip(columns, FOUND, strict=True)], FOUND
    )


def files_below(
    root: str, progress: Progress, label: str | None = None, split: str | None = None
) -> Iterator[pa.RecordBatch]:
    """All regular files below the local `root`, hidden and systems' own aside: a directory's own,
    sorted, then those of its sorted subdirectories. Symbolic links are followed, but never around
    in a circle. `progress` counts them as they are seen."""
    yield from _walk(os.fsencode(root), progress, label, split, frozenset())


def files_in_store(root: str, progress: Progress) -> Iterator[pa.RecordBatch]:
    """All files below `root` in a store, hidden and systems' own aside, in the store's order.
    `progress` counts them as they are seen.

    Raises:
        FlowerrayError: it can't be listed.
    """
    try:
        for page in stores.source_at(root).files(root):
            shown = [(uri, size) for uri, size in page if _is_shown(uri[len(root) :])]
            progress.add(len(shown))
            yield batch([uri for uri, _ in shown], [size for _, size in shown])
    except (OSError, ValueError) as error:
        raise FlowerrayError(f"can't list {root}: {error}") from None


def _told(source: str, columns: Columns, labelled: bool) -> Iterator[pa.RecordBatch]:
    """What is found, how far the listing is, and if there is nothing."""
    empty, progress = True, Progress(LISTING, None)
    try:
        for one in _found(source, columns, labelled, progress):
            empty = empty and not len(one)
            yield one
    finally:  # also where only the first are asked for
        progress.finish()
    if empty:
        raise FlowerrayError(f"no photographs found in {source}")


def _found(
    source: str, columns: Columns, labelled: bool, progress: Progress
) -> Iterator[pa.RecordBatch]:
    if is_remote(source):
        yield from _remote(source.rstrip("/"), columns, labelled, progress)
        return
    path = expanded(source)
    if os.path.isdir(path):
        path = os.path.abspath(path)
        if is_table(path):
            yield from _listed_in(path, columns, labelled, progress)
        else:
            yield from files_below(path, progress)
    elif os.path.isfile(path):
        yield from _listed_in(os.path.abspath(path), columns, labelled, progress)
    elif glob.has_magic(path):
        yield from _batches_of_paths(sorted(_counted(glob.iglob(path, recursive=True), progress)))
    elif os.path.exists(path):
        raise FlowerrayError(f"{source} is a pipe or a device: save the list as a file")
    else:
        raise FlowerrayError(f"no photographs at {source}: no such file or directory")


def is_table(directory: str) -> bool:
    """Whether `directory`, here or in a store, holds the part files of a table and nothing else."""
    try:
        return tables.parts_of(directory) is not None
    except (OSError, ValueError):  # the listing will tell
        return False


def _remote(
    source: str, columns: Columns, labelled: bool, progress: Progress
) -> Iterator[pa.RecordBatch]:
    if is_glob(source):
        matches = re.compile(glob_translate(source)).match
        above = source[: re.search(r"[*?\[]", source).start()].rpartition("/")[0]  # type: ignore[union-attr]
        for one in files_in_store(above, progress):
            yield one.filter(pa.array([bool(matches(u)) for u in one["uri"].to_pylist()]))
    elif tables.is_named_so(source) or is_table(source):
        yield from _listed_in(source, columns, labelled, progress)
    else:
        yield from files_in_store(source, progress)


def _is_shown(below: str) -> bool:
    *folders, name = below.strip("/").split("/")
    return not (is_left_out(name) or any(is_left_out(f, folder=True) for f in folders))


def _walk(
    directory: bytes,
    progress: Progress,
    label: str | None,
    split: str | None,
    above: frozenset[tuple[int, int]],
) -> Iterator[pa.RecordBatch]:
    subdirectories, files, sizes = [], _Column(pa.large_binary()), _Column(pa.int64())
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
                    files.append(entry.name)
                    sizes.append(None)
                    continue
                name = os.fsdecode(entry.name)
                if stat.S_ISDIR(status.st_mode):
                    if not is_left_out(name, folder=True):
                        subdirectories.append(entry.name)
                # A pipe or device would block a reader.
                elif stat.S_ISREG(status.st_mode) and not is_left_out(name):
                    files.append(entry.name)
                    sizes.append(status.st_size)
                    progress.add(1)  # here: of a directory with a million files all are read first
    except OSError:  # its one row is rejected when it is read, with the reason
        yield batch([local_uri(directory)], [None], label, split)
        return
    # Of one chunk each: taking rows of several copies all of them, each time.
    listed, file_sizes = files.array().combine_chunks(), sizes.array().combine_chunks()
    order = pc.sort_indices(listed)
    for start in range(0, len(order), ROWS_A_BATCH):
        chosen = order.slice(start, ROWS_A_BATCH)
        found = [local_uri(os.path.join(directory, n)) for n in listed.take(chosen).to_pylist()]
        yield batch(found, file_sizes.take(chosen).to_pylist(), label, split)
    for subdirectory in sorted(subdirectories):
        below = os.path.join(directory, subdirectory)
        yield from _walk(below, progress, label, split, above | {identity})


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


def _listed_in(
    path: str, columns: Columns, labelled: bool, progress: Progress
) -> Iterator[pa.RecordBatch]:
    """The photographs that the list or table at `path` names."""
    wanted = ("uri", "label", "split") if labelled else ("uri",)
    signed: dict[str, str] = {}
    for rows in tables.read(path, columns, wanted=wanted):
        progress.add(len(rows))
        yield _as_found(rows, path, signed)


def _as_found(rows: pa.RecordBatch, path: str, signed: dict[str, str]) -> pa.RecordBatch:
    """`rows` of the table at `path`, whose uris that had a signature are put into `signed`."""
    folder, numbers = path.rpartition("/")[0], rows["row"].to_pylist()
    a_list = path.lower().endswith(text_tables.LISTS)
    found, kept = [], []
    for i, written in enumerate(rows["uri"].to_pylist()):
        number = numbers[i]
        if not written:
            raise FlowerrayError(
                f"{text_tables.at(path, number)} has no uri: fill it in or remove the row"
            )
        uri = uris.of_cell(written, folder, text_tables.at(path, number))
        if a_list and _is_no_photograph(written, uri):
            continue
        query = credentials.query_of(uri) if is_remote(uri) else ""
        if query and signed.setdefault(uri, query) != query:
            raise FlowerrayError(
                f"{text_tables.at(path, number)} names {uri} as another row does, but with another "
                "signature: name each photograph once, and at an address that is its own"
            )
        found.append(uri)
        kept.append(i)
    columns = [pa.array(found, pa.string())]
    there = rows.schema.names
    for name, meaning in (("label", names.class_name), ("split", None)):
        texts = rows[name].to_pylist() if name in there else [None] * len(rows)
        if meaning is not None:
            texts = [meaning(text) for text in texts]
        else:
            texts = [_split_of(t, path, n) for t, n in zip(texts, numbers, strict=True)]
        columns.append(pa.array([texts[i] for i in kept], pa.string()))
    # A column called size may say anything, in any unit: sizes are those of files listed here.
    return pa.record_batch([*columns, pa.nulls(len(found), pa.int64())], FOUND)


def _is_no_photograph(written: bytes | str, uri: str) -> bool:
    """A comment in a list, or a directory."""
    if is_remote(uri):
        return False
    path = stores.local_path(uri)
    comment = os.fsdecode(written).lstrip().startswith("#") and not os.path.lexists(path)
    return comment or os.path.isdir(path)


def _split_of(written: str | None, path: str, row: int) -> str | None:
    if written is None or not written.strip():
        return None
    split = split_named(written)
    if split is None:
        raise FlowerrayError(
            f"{text_tables.at(path, row)} has split {written!r}: use train, valid, test or nothing"
        )
    return split


def _counted(paths: Iterable[str], progress: Progress) -> Iterator[str]:
    for path in paths:
        progress.add(1)
        yield path


def _batches_of_paths(paths: Iterable[str]) -> Iterator[pa.RecordBatch]:
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path) and os.path.basename(path).lower() not in SYSTEM_FILES:
            found.append(local_uri(os.fsencode(os.path.abspath(path))))
        if len(found) == ROWS_A_BATCH:
            yield batch(found, [None] * len(found))
            found = []
    if found:
        yield batch(found, [None] * len(found))
