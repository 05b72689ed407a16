"""Every other file system: hdfs:// through Arrow, and what fsspec has an implementation of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores.about import PIECE_BYTES, About
from flowerray.stores.fetched import fetched
from flowerray.stores.limit import read_at_most

DEPTH = 64  # of directories that are listed
ARROWS_OWN = ("hdfs", "viewfs")


class ArrowStore:
    """See ``flowerray.stores.Store``. A file is written beside and renamed."""

    def __init__(self, scheme: str, authority: str, login: str) -> None:
        self._root = f"{scheme}://{authority}"
        if "::" in scheme:  # fsspec's chains would lead around what the other stores refuse
            raise UsageError(f"{scheme}:// is a chain of stores: give the uri of the last one")
        if scheme in ARROWS_OWN:
            self._system, path = fs.FileSystem.from_uri(f"{self._root}/")
        else:
            self._system, path = _of_fsspec(self._root, login)
        self._prefix = path.rstrip("/")

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """See Store."""
        with self._system.open_input_stream(self._path(uri)) as stream:
            return read_at_most(stream.read, limit)

    def open(
        self, uri: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> pa.NativeFile:
        """See Store."""
        file = self._system.open_input_file(self._path(uri))
        if not isinstance(self._system, fs.PyFileSystem):
            return file
        with file:
            return fetched(
                file.size(),
                lambda ranges: (file.read_at(end - start, start) for start, end in ranges),
                columns,
                groups,
            )

    def about(self, uri: str) -> About:
        """See Store."""
        found = self._system.get_file_info(self._path(uri))
        if found.type == fs.FileType.NotFound:
            raise FileNotFoundError(f"{uri} is not there")
        return About(found.size, str(found.mtime_ns) if found.mtime_ns else None)

    def pieces(self, uri: str) -> Iterator[bytes]:
        """See Store."""
        with self._system.open_input_stream(self._path(uri)) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece

    @contextmanager
    def create(self, uri: str, beside: str) -> Iterator[BinaryIO]:
        """See Store."""
        pending = f"{beside}/{uuid.uuid4().hex}"
        for file in (uri, pending):
            self._system.create_dir(self._path(file).rpartition("/")[0], recursive=True)
        try:
            with self._system.open_output_stream(self._path(pending)) as stream:
                yield stream
            self._system.move(self._path(pending), self._path(uri))
        finally:
            self.delete(pending)

    def names(self, uri: str) -> set[str]:
        """See Store."""
        return {info.base_name for info in self._in(self._path(uri))}

    def files(self, uri: str) -> Iterator[list[tuple[str, int | None]]]:
        """See Store: directory by directory."""
        yield from self._files(uri, 0)

    def _files(self, uri: str, depth: int) -> Iterator[list[tuple[str, int | None]]]:
        if depth > DEPTH:
            raise FlowerrayError(
                f"{uri} has more than {DEPTH} directories above it: does one lead back to itself? "
                "Name photographs in a list instead"
            )
        found = self._in(self._path(uri))
        yield [(self._uri(i.path), i.size) for i in found if i.type == fs.FileType.File]
        for info in found:
            if info.type == fs.FileType.Directory:
                yield from self._files(self._uri(info.path), depth + 1)

    def exists(self, uri: str) -> bool:
        """See Store."""
        found = self._system.get_file_info(self._path(uri)).type
        return bool(found != fs.FileType.NotFound)

    def delete(self, uri: str) -> None:
        """See Store."""
        path = self._path(uri)
        kind = self._system.get_file_info(path).type
        if kind == fs.FileType.Directory:
            self._system.delete_dir(path)
        elif kind == fs.FileType.File:
            self._system.delete_file(path)

    def delete_files(self, uris: Sequence[str]) -> None:
        """See Store."""
        for uri in uris:
            if self.exists(uri):
                self._system.delete_file(self._path(uri))

    def delete_empty(self, uri: str) -> None:
        """See Store."""
        if self.exists(uri) and not self.names(uri):
            self._system.delete_dir(self._path(uri))

    def swap(self, uri: str, expected: bytes | None, data: bytes | None) -> bool:
        """See Store: as well as can be without conditions, by a look before and one after."""
        if self._content(uri) != expected:
            return False
        if data is None:
            self.delete(uri)
            return True
        with self.create(uri, uri.rpartition("/")[0]) as stream:
            stream.write(data)
        return self._content(uri) == data

    def _content(self, uri: str) -> bytes | None:
        try:
            return self.read(uri)
        except FileNotFoundError:
            return None

    def _in(self, path: str) -> list[Any]:
        selector = fs.FileSelector(path, allow_not_found=True)
        return sorted(self._system.get_file_info(selector), key=lambda info: info.path)

    def _path(self, uri: str) -> str:
        return (self._prefix + uri.removeprefix(self._root)).rstrip("/") or "/"

    def _uri(self, path: str) -> str:
        return self._root + "/" + path.removeprefix(self._prefix).lstrip("/")


def _of_fsspec(root: str, login: str) -> tuple[Any, str]:
    import fsspec

    scheme, _, host = root.partition("://")
    entered = f"{scheme}://{login}@{host.rpartition('@')[2]}" if login else root
    try:
        system, path = fsspec.core.url_to_fs(f"{entered}/")
    except (ValueError, ImportError) as error:
        raise UsageError(f"{root} can't be opened: {error}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path
