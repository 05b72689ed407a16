"""Files of this machine, or of a file system that every node mounts."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa

from flowerray.stores.about import PIECE_BYTES, About
from flowerray.stores.limit import read_at_most

FILE = re.compile(r"file:(//(localhost(?=/))?)?(?=/)|file://", re.IGNORECASE)


def local_path(uri: str) -> str | bytes:
    """The path behind a local `uri`; ``file:`` percent-encodes names that are no UTF-8, and may be
    followed by ``//`` and by ``localhost``."""
    scheme = FILE.match(uri)
    return unquote_to_bytes(uri[scheme.end() :]) if scheme else uri


def expanded(path: str) -> str:
    """A local path as users write it: with ``~``, or as a ``file://`` uri."""
    return os.path.expanduser(os.fsdecode(local_path(path)))


def local_uri(path: bytes) -> str:
    """The uri of a local path: itself where it is UTF-8, else what `local_path` undoes."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(path)


class LocalStore:
    """See ``flowerray.stores.Store``. A file is written beside, flushed to disk, and renamed."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """See Store."""
        with open(local_path(uri), "rb", opener=_regular) as stream:
            return read_at_most(stream.read, limit)

    def open(
        self, uri: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> pa.NativeFile:
        """See Store."""
        path = os.fsdecode(local_path(uri))
        os.close(_regular(path, os.O_RDONLY))
        return pa.OSFile(path, "rb")

    def about(self, uri: str) -> About:
        """See Store."""
        found = os.stat(local_path(uri))
        return About(found.st_size, str(found.st_mtime_ns))

    def pieces(self, uri: str) -> Iterator[bytes]:
        """See Store."""
        with open(local_path(uri), "rb", opener=_regular) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece

    @contextmanager
    def create(self, uri: str, beside: str) -> Iterator[BinaryIO]:
        """See Store; `beside` must be on the same file system, and there unless it is the target's
        own directory."""
        target = Path(os.fsdecode(local_path(uri)))
        pending = Path(beside) / f"{target.name[:64]}.{uuid.uuid4().hex[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(pending, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(pending, target)
        finally:
            pending.unlink(missing_ok=True)

    def names(self, uri: str) -> set[str]:
        """See Store."""
        try:
            return {entry.name for entry in os.scandir(uri)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def files(self, uri: str) -> Iterator[list[tuple[str, int | None]]]:
        """See Store. Photographs are listed by ``flowerray.sources.listing``, which knows links in
        circles and names that are no UTF-8."""
        for directory, subdirectories, names in os.walk(uri):
            subdirectories.sort()
            paths = [os.path.join(directory, name) for name in sorted(names)]
            yield [(path, os.path.getsize(path)) for path in paths]

    def exists(self, uri: str) -> bool:
        """See Store."""
        try:
            os.lstat(local_path(uri))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def delete(self, uri: str) -> None:
        """See Store."""
        if os.path.isdir(uri) and not os.path.islink(uri):
            shutil.rmtree(uri)
        else:
            Path(uri).unlink(missing_ok=True)

    def delete_files(self, uris: Sequence[str]) -> None:
        """See Store."""
        for uri in uris:
            Path(uri).unlink(missing_ok=True)

    def delete_empty(self, uri: str) -> None:
        """See Store."""
        with suppress(OSError):  # not there, not empty, or a link to where the user wants it
            os.rmdir(uri)

    def swap(self, uri: str, expected: bytes | None, data: bytes | None) -> bool:
        """See Store: alone by a lock on the directory, which some network file systems lack."""
        path = Path(uri)
        if expected is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _locked(path.parent):
                if expected is None:
                    _create(path, data or b"")
                elif path.read_bytes() != expected:
                    return False
                elif data is None:
                    path.unlink()
                else:
                    pending = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
                    _create(pending, data)
                    os.replace(pending, path)
        except (FileExistsError, FileNotFoundError):
            return False
        return True


def _create(path: Path, data: bytes) -> None:
    with open(path, "xb") as stream:
        try:
            stream.write(data)
            stream.flush()
        except OSError:
            path.unlink()
            raise


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _regular(path: str, flags: int) -> int:
    """Open a file; a pipe or a device, which a reader would wait for, raises OSError."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a directory the read says so
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor
