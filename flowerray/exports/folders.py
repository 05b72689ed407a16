"""A folder a class, with links to the photographs or copies of them."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.exports.directory import build
from flowerray.exports.rows import Exported, labelled_rows, local_path_of
from flowerray.outputs.record import Output
from flowerray.progress import rest_in_a_file, say, some_of
from flowerray.settings import ExportSettings
from flowerray.sources.deadline import Overdue, within
from flowerray.sources.photographs import Limits
from flowerray.stores import is_remote, local_path

LONGEST_NAME = 255  # bytes of a file's name, on the file systems of Linux and macOS


def write(
    out: str, tables: Iterable[pa.Table], output: Output, settings: ExportSettings
) -> Exported:
    """A directory with a folder a class."""
    return Exported(*build(out, output, settings, lambda root: _fill(tables, root, settings.copy)))


def _fill(tables: Iterable[pa.Table], root: Path, copy: bool) -> tuple[int, int]:
    """``root/CLASS/NAME`` for each photograph: a symbolic link to it, or a copy.

    Where a class has two of one name, the later row's name gets its image_id. Returns how many
    there are, and how many could not be read to be copied.
    """
    put = _copy if copy else _link
    made: set[str] = set()
    count, lost = 0, list[str]()
    for row in labelled_rows(tables):
        folder = root / folder_name(row["label"])
        if row["label"] not in made:
            folder.mkdir(exist_ok=True)
            made.add(row["label"])
        for name in _names(row["uri"], row["image_id"]):
            try:
                put(row["uri"], folder / name)
                count += 1
            except FileExistsError:
                continue
            except _Unreadable as error:
                lost.append(f"not copied: {row['uri']}: {error}")
            break
    for line in some_of(lost, lambda: rest_in_a_file("export.txt", "\n".join([*lost, ""]))):
        say(line)
    return count, len(lost)


def folder_name(label: str) -> str:
    """`label` as a directory's name: what could lead out of its parent, hide it or not be written
    everywhere is percent-encoded, so that two labels never share one. One that is too long for a
    file system is cut, and gets a hash of the whole."""
    odd = r'[%/\\:*?"<>|\x00-\x1f]|^\.|[. ]$'
    name = re.sub(odd, lambda match: f"%{ord(match[0]):02X}", label) or "%"
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    cut = os.fsencode(name)[: LONGEST_NAME - 17].decode("utf-8", "ignore")
    return f"{cut}%{hashlib.blake2b(label.encode(), digest_size=8).hexdigest()}"


class _Unreadable(Exception):
    """Why a photograph could not be copied."""


def _link(uri: str, path: Path) -> None:
    target = local_path_of(uri, "only local files can be linked: give --copy")
    try:
        os.symlink(os.fsencode(target), os.fsencode(path))
    except FileExistsError:
        raise
    except OSError as error:
        raise FlowerrayError(
            f"can't make links in {path.parent}: {error.strerror}; give --copy, or choose another "
            "--out"
        ) from None


def _copy(uri: str, path: Path) -> None:
    try:
        data = within(Limits().read_seconds, stores.source_at(uri).read, uri)
    except Overdue:
        raise _Unreadable("its storage does not answer") from None
    except (OSError, ValueError, UsageError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise _Unreadable(reason) from None
    with open(path, "xb") as target:
        target.write(data)


def _names(uri: str, image_id: int) -> Iterator[str]:
    """The photograph's own name, then others that are its alone, short enough for a file."""
    path = uri.partition("?")[0] if is_remote(uri) else os.fsdecode(local_path(uri))
    name = path.rpartition("/")[2]
    if len(os.fsencode(name)) <= LONGEST_NAME:
        yield name
    stem, suffix = os.path.splitext(name)
    if len(suffix) > 16:  # no extension, only a dot in a long name
        stem, suffix = name, ""
    for attempt in itertools.count(1):
        end = f"-{image_id}{suffix}" if attempt == 1 else f"-{image_id}-{attempt}{suffix}"
        while len(os.fsencode(stem + end)) > LONGEST_NAME:
            stem = stem[:-1]
        yield stem + end
