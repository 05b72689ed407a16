"""Where bytes lie: local files, object stores, web servers, and what Arrow and fsspec know.

A store takes whole uris. Each kind is one file of one class; `store_at` chooses by the scheme.
Actors and the driver each open their own stores: a uri is all that travels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, Protocol

from flowerray.errors import UsageError
from flowerray.stores import credentials
from flowerray.stores.about import About
from flowerray.stores.credentials import WEB_SCHEMES, Credentials
from flowerray.stores.local import LocalStore, expanded, local_path, local_uri

if TYPE_CHECKING:
    import pyarrow as pa

OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "azure")

__all__ = [
    "WEB_SCHEMES",
    "About",
    "Access",
    "Store",
    "expanded",
    "in_use",
    "is_remote",
    "local_path",
    "local_uri",
    "source_at",
    "store_at",
    "use",
]


class Store(Protocol):
    """Files below one root, named by their uris.

    All raise FileNotFoundError where nothing is, and OSError where the storage refuses, when it has
    been asked again as often as makes sense for its kind.
    """

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """The bytes of a file; OSError with ``errno.EFBIG`` where there are more than `limit`."""

    def open(
        self, uri: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> pa.NativeFile:
        """A file to read in any order, in memory or a file that Arrow owns. Of a Parquet file, a
        store that can fetches these `columns` and row `groups` alone; elsewhere it is empty then.
        """

    def about(self, uri: str) -> About:
        """What the storage says of a file without its being read."""

    def pieces(self, uri: str) -> Iterator[bytes]:
        """The bytes of a file from its beginning, a few megabytes at a time at most."""

    def create(self, uri: str, beside: str) -> AbstractContextManager[BinaryIO]:
        """Write a file: it appears, or replaces what was there, when the block ends well. Until
        then it may lie in the directory `beside`."""

    def names(self, uri: str) -> set[str]:
        """The names of files and directories in a directory; none where it is not there."""

    def files(self, uri: str) -> Iterator[list[tuple[str, int | None]]]:
        """Uri and size in bytes of every file below a directory, in a fixed order, in pages."""

    def exists(self, uri: str) -> bool:
        """Whether there is a file `uri`; a link that leads nowhere is one too."""

    def delete(self, uri: str) -> None:
        """Remove a file, or a directory with all in it, if it is there."""

    def delete_files(self, uris: Sequence[str]) -> None:
        """Remove those of the files that are there."""

    def delete_empty(self, uri: str) -> None:
        """Remove a directory that is there with nothing in it; else do nothing."""

    def swap(self, uri: str, expected: bytes | None, data: bytes | None) -> bool:
        """Write the small file `uri` only if it holds `expected` now; None says that it is not
        there. Returns whether it did so: of several that try at once one does, as far as the
        storage can tell them apart. Its directory is made where there is none."""


@dataclass(frozen=True)
class Access:
    """How object stores are reached, beside what the environment says: the address of an S3 server
    other than AWS', and whether photographs are read without credentials; and the hosts that web
    servers may redirect to. With it go the logins and signatures that this process has taken out of
    uris."""

    endpoint_url: str | None = None
    anonymous: bool = False
    redirect_hosts: tuple[str, ...] = ()
    known: Credentials = field(default=credentials.known, compare=False, repr=False)


_access = Access()


def use(access: Access) -> None:
    """Reach object stores by `access` in this process from now on."""
    global _access
    _access = access
    credentials.known.learn(access.known)


def in_use() -> Access:
    """How this process reaches object stores, for one that it starts."""
    return _access


def scheme_of(uri: str) -> str:
    """The scheme of `uri`, in small letters; empty for a local path."""
    scheme, mark, _ = uri.partition("://")
    return scheme.lower() if mark else ""


def is_remote(uri: str) -> bool:
    """Whether `uri` is anything but a local file."""
    return scheme_of(uri) not in ("", "file")


def store_at(uri: str) -> Store:
    """The store that `uri` is in, to read and write one's own results.

    Raises:
        UsageError: nothing here knows its scheme.
    """
    return _store(uri, replace(_access, anonymous=False))


def source_at(uri: str) -> Store:
    """The store that `uri` is in, to read photographs.

    Raises:
        UsageError: nothing here knows its scheme.
    """
    return _store(uri, _access)


def _store(uri: str, access: Access) -> Store:
    authority = uri.partition("://")[2].partition("/")[0] if is_remote(uri) else ""
    return _opened(scheme_of(uri), authority, credentials.login_of(uri), access)


@lru_cache(maxsize=64)
def _opened(scheme: str, authority: str, login: str, access: Access) -> Store:
    # Each kind's library is imported where it is used: a job on local files needs none.
    if scheme in ("", "file"):
        return LocalStore()
    if not authority and scheme in (*OBJECT_SCHEMES, *WEB_SCHEMES):
        raise UsageError(f"{scheme}:// needs a bucket or host: {scheme}://NAME/...")
    if scheme in OBJECT_SCHEMES:
        if login:
            raise UsageError(
                f"{scheme}://{authority} was given with a password: give credentials of buckets as "
                "docs/storage.md says"
            )
        from flowerray.stores.objects import ObjectStore

        return ObjectStore(scheme, authority, access)
    if scheme in WEB_SCHEMES:
        from flowerray.stores.web import WebStore

        return WebStore(access.redirect_hosts)
    from flowerray.stores.arrow import ArrowStore

    return ArrowStore(scheme, authority, login)
