"""The directory or prefix that one job's output lies in: a file is there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores import Store

# What no running again gets past: the place itself can't be.
NAMES_REFUSED = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP)


@dataclass(frozen=True)
class Folder:
    """A directory of one job's output, local or in a store. Readers see only committed files."""

    uri: str

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Folder:
        """The folder at `path`, a local one made absolute so that every actor means the same place.

        Raises:
            UsageError: `path` is relative inside a Ray job, whose directory is a passing copy.
        """
        return cls(located(path))

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine's file systems."""
        return not stores.is_remote(self.uri)

    def file(self, name: str) -> str:
        """The uri of `name` in here, there or not."""
        return self.uri if name == "." else f"{self.uri.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of `name`.

        Raises:
            FileNotFoundError: it is not there.
            OSError: the storage refuses.
        """
        return self._store.read(self.file(name))

    def open(
        self, name: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> pa.NativeFile:
        """`name` to read in any order, of a Parquet file perhaps no more than these `columns` and
        row `groups`; raises as `read` does."""
        return self._store.open(self.file(name), columns, groups)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write `name`: it appears, or replaces what was there, when the block ends well.

        Raises:
            FlowerrayError: the storage refuses (disk full, read-only, no permission).
        """
        self._check()
        with whole_file(self.file(name), self._pending) as stream:
            yield stream
            self._check()

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write `data` as `name`, atomically."""
        with self.create(name) as stream:
            stream.write(data)

    def hint(self, name: str, data: bytes) -> None:
        """Write `data` as `name`; it may be lost, or half there, after a power cut.

        Raises:
            FlowerrayError: the storage refuses (disk full, read-only, no permission).
        """
        if not self.is_local:
            return self.write(name, data)
        self._check()
        path = self.file(name)
        with _refusals_told(path):
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path))
            with open(path, "wb") as stream:
                stream.write(data)

    def exists(self, name: str) -> bool:
        """Whether `name`, a file or directory, is in here."""
        directory, _, base = name.rpartition("/")
        return base in self.names(directory or ".")

    def remove(self, name: str) -> None:
        """Remove `name`, a file or a directory with all in it, if it is there.

        Raises:
            FlowerrayError: the storage refuses.
        """
        self._check()
        with _refusals_told(self.file(name)):
            self._store.delete(self.file(name))

    def remove_files(self, directory: str, names: Collection[str]) -> None:
        """Remove the files `names` of `directory`, and the directory if nothing else is in it.

        Raises:
            FlowerrayError: the storage refuses.
        """
        self._check()
        uris = [f"{self.file(directory)}/{name}" for name in sorted(names)]
        with _refusals_told(self.file(directory)):
            self._store.delete_files(uris)
            self._store.delete_empty(self.file(directory))

    def tidy(self, *names: str) -> None:
        """Remove `names` where the storage lets us; what is left of them does no harm."""
        for name in names:
            with suppress(FlowerrayError):
                self.remove(name)

    def names(self, directory: str) -> set[str]:
        """The names of the committed files in `directory`; empty where it is not there.

        Raises:
            FlowerrayError: the storage refuses.
        """
        try:
            return self._store.names(self.file(directory))
        except OSError as error:
            raise unreadable(self.file(directory), error) from None

    @property
    def _store(self) -> Store:
        return stores.store_at(self.uri)

    @property
    def _pending(self) -> str | None:
        """The directory for files that are being written; None is the file's own."""
        return None

    def _check(self) -> None:
        """Raise where nothing may be written here any more."""


def located(path: str | os.PathLike[str]) -> str:
    """The uri of a file or directory that a user named: a local path absolute, ``~`` expanded.

    Raises:
        UsageError: `path` is relative inside a Ray job, whose directory is a passing copy; or it
            is in a store and a part of it names nothing.
    """
    named = os.fspath(path)
    if stores.is_remote(named):
        if {"", ".", ".."} & set(named.rstrip("/").partition("://")[2].split("/")[1:]):
            raise UsageError(f"{named} has a part that is empty, . or ..: leave it out")
        return named.rstrip("/")
    expanded = stores.expanded(named)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not os.path.isabs(expanded):
        raise UsageError(
            f"{path} is relative, and a Ray job runs in a temporary copy of the directory it "
            "was submitted from: give an absolute path that every node sees"
        )
    return os.path.abspath(expanded)


def read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of the file that a user named.

    Raises:
        FileNotFoundError: it is not there.
        OSError: the storage refuses.
    """
    uri = located(path)
    return stores.store_at(uri).read(uri)


@contextmanager
def whole_file(target: str | os.PathLike[str], beside: str | None = None) -> Iterator[BinaryIO]:
    """Write `target`: it appears, or replaces what was there, when the block ends well. Until then
    it may be a file in the directory `beside`, by default the target's own.

    Raises:
        FlowerrayError: the storage refuses (disk full, read-only, no permission).
    """
    uri = located(target)
    with (
        _refusals_told(uri),
        stores.store_at(uri).create(uri, beside or uri.rpartition("/")[0]) as stream,
    ):
        yield stream


@contextmanager
def _refusals_told(uri: str) -> Iterator[None]:
    """An OSError of the block, which writes `uri`, comes out as a FlowerrayError."""
    try:
        yield
    except OSError as error:
        raise refused(uri, error) from error


def unreadable(uri: object, error: Exception, mend: str = "") -> FlowerrayError:
    """What to raise where `uri` can't be read, by the storage's or Arrow's `error`."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return FlowerrayError(f"can't read {uri}: {reason}{mend}")


def refused(uri: str | os.PathLike[str], error: OSError) -> FlowerrayError:
    """What to raise where the storage refuses to write `uri`."""
    mend = "see that it may be written to, then run the same command again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "make room, then run the same command again"
    if error.errno in NAMES_REFUSED:
        return FlowerrayError(f"can't write {uri}: {error.strerror}; choose another --out")
    return FlowerrayError(
        f"can't write {uri}: {error.strerror or error}; {mend}, or choose another --out"
    )
