"""Object stores: S3 and its equals, Google Cloud Storage, Azure Blob Storage.

Through obstore, the Rust library object_store: one request a file, connections kept, no Python lock
held, and requests that are throttled or fail by the server's fault (429, 5xx, lost connections)
sent again after a growing, random wait.
"""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PreconditionError,
)

from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores.about import PIECE_BYTES, About
from flowerray.stores.fetched import Range, fetched, in_memory
from flowerray.stores.limit import too_large

if TYPE_CHECKING:
    from flowerray.stores import Access

PAGE = 1000  # keys in one answer of a store that is listed
WHOLE_BYTES = 8 << 20  # files up to this size come in one request, larger ones in parts
GAP_BYTES = 64 << 10  # between two parts that come in one request
RETRIES: Any = {"max_retries": 12, "retry_timeout": timedelta(minutes=5)}
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
TIMEOUTS = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=2)}


class ObjectStore:
    """See ``flowerray.stores.Store``. An object is put whole or not at all."""

    def __init__(self, scheme: str, bucket: str, access: Access) -> None:
        self._root = f"{scheme}://{bucket}"
        if not re.fullmatch(r"[\w.@-]+", bucket, re.ASCII):
            raise UsageError(f"{bucket!r} is no name of a bucket")
        options: Any = dict(TIMEOUTS)
        config: Any = {}
        credentials = None
        if access.anonymous:
            config["skip_signature"] = True
        if scheme in ("s3", "s3a"):
            endpoint = access.endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
            if endpoint:
                _check_answers(endpoint)
                config["endpoint"] = endpoint
                options["allow_http"] = endpoint.startswith("http://")
            elif not {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(os.environ):
                config["region"] = _region_of(bucket)
            credentials = None if access.anonymous else _profile()
        try:
            self._store: Any = obstore.store.from_url(
                self._root.replace("s3a://", "s3://"),
                config=config,
                client_options=options,
                retry_config=RETRIES,
                **({"credential_provider": credentials} if credentials else {}),
            )
        except (BaseError, ValueError) as error:
            raise FlowerrayError(f"can't open {self._root}: {_first_line(error)}") from None

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """See Store."""
        with _os_errors():
            found = self._store.get(self._key(uri))
            if limit is not None and found.meta["size"] > limit:
                raise too_large()
            return memoryview(found.bytes()).tobytes()

    def open(
        self, uri: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> pa.NativeFile:
        """See Store."""
        with _os_errors():
            key = self._key(uri)
            if columns is None and groups is None:
                found = self._store.get(key)
                size = found.meta["size"]
                if size <= WHOLE_BYTES:
                    return in_memory(found.bytes())
            else:
                size = self._store.head(key)["size"]
            return fetched(size, lambda ranges: self._ranges(key, ranges), columns, groups)

    def _ranges(self, key: str, ranges: Sequence[Range]) -> Any:
        starts, ends = zip(*ranges, strict=True)
        return self._store.get_ranges(key, starts=starts, ends=ends, coalesce=GAP_BYTES)

    def about(self, uri: str) -> About:
        """See Store."""
        with _os_errors():
            found = self._store.head(self._key(uri))
        return About(found["size"], found["e_tag"] or str(found["last_modified"]))

    def pieces(self, uri: str) -> Iterator[bytes]:
        """See Store: a request each, so that none is longer than its deadline."""
        key, (size, _) = self._key(uri), self.about(uri)
        for start in range(0, size or 0, PIECE_BYTES):
            with _os_errors():
                end = min(start + PIECE_BYTES, size or 0)
                piece = self._store.get_range(key, start=start, end=end)
            if len(piece) != end - start:
                raise OSError("the file became shorter while it was read")
            yield memoryview(piece).tobytes()

    @contextmanager
    def create(self, uri: str, beside: str) -> Iterator[BinaryIO]:
        """See Store; nothing lies beside: what is not closed never becomes an object."""
        with _os_errors():
            writer = _Writer(obstore.open_writer(self._store, self._key(uri)))
            yield cast(BinaryIO, writer)
            writer.commit()

    def names(self, uri: str) -> set[str]:
        """See Store."""
        with _os_errors():
            found = self._store.list_with_delimiter(self._key(uri))
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return {path.rpartition("/")[2] for path in paths}

    def files(self, uri: str) -> Iterator[list[tuple[str, int | None]]]:
        """See Store: in the order of their keys. The empty objects by which some tools mark a
        directory are left out."""
        marker: tuple[str, int | None] | None = None
        try:
            with _os_errors():
                for page in self._store.list(self._key(uri), chunk_size=PAGE):
                    found: list[tuple[str, int | None]] = []
                    for one in page:
                        if marker and not one["path"].startswith(marker[0] + "/"):
                            found.append((f"{self._root}/{marker[0]}", 0))
                        marker = (one["path"], 0) if one["size"] == 0 else None
                        if marker is None:
                            found.append((f"{self._root}/{one['path']}", one["size"]))
                    yield found
                if marker:
                    yield [(f"{self._root}/{marker[0]}", 0)]
        except InvalidPathError as error:
            raise FlowerrayError(
                f"{uri} has a key that can't be listed ({_first_line(error)}): name the "
                "photographs in a .txt list or a .parquet table instead"
            ) from None

    def exists(self, uri: str) -> bool:
        """See Store."""
        try:
            with _os_errors():
                self._store.head(self._key(uri))
        except FileNotFoundError:
            return False
        return True

    def delete(self, uri: str) -> None:
        """See Store."""
        key = self._key(uri)
        with _os_errors():
            for page in self._store.list(key, chunk_size=PAGE):
                self._store.delete([one["path"] for one in page])
            try:
                self._store.delete(key)
            except FileNotFoundError:
                return

    def delete_files(self, uris: Sequence[str]) -> None:
        """See Store."""
        with _os_errors():
            for start in range(0, len(uris), PAGE):
                self._store.delete([self._key(uri) for uri in uris[start : start + PAGE]])

    def delete_empty(self, uri: str) -> None:
        """See Store: there are no directories."""

    def swap(self, uri: str, expected: bytes | None, data: bytes | None) -> bool:
        """See Store: by conditional puts. Nothing can be removed on a condition: between the look
        and the removal another could write."""
        key = self._key(uri)
        with _os_errors():
            mode: Any = "create"
            if expected is not None:
                try:
                    found = self._store.get(key)
                except FileNotFoundError:
                    return False
                if memoryview(found.bytes()) != expected:
                    return False
                if data is None:
                    self._store.delete(key)
                    return True
                mode = {k: found.meta[k] for k in ("e_tag", "version") if found.meta[k]}
            try:
                self._store.put(key, data, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                # A put whose answer was lost is sent again, and finds itself there.
                return memoryview(self._store.get(key).bytes()) == data
            except NotSupportedError:
                self._store.put(key, data)
        return True

    def _key(self, uri: str) -> str:
        return uri.partition("://")[2].partition("/")[2]


class _Writer(io.RawIOBase):
    """What Arrow takes for a file, of a writer of obstore's; closing it commits nothing."""

    def __init__(self, file: Any) -> None:
        self._file, self._position = file, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def commit(self) -> None:
        self._file.close()


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except (InvalidPathError, FlowerrayError):
        raise
    except (FileNotFoundError, BaseError) as error:
        if any(code in str(error) for code in NO_BUCKET):
            raise OSError("there is no such bucket") from None
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(_first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(": <?xml")[0].strip()


def _check_answers(endpoint: str) -> None:
    """A wrong address is known at once; the retries would go on for minutes."""
    parts = urlsplit(endpoint)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except (OSError, KeyError, ValueError) as error:
        raise FlowerrayError(
            f"no S3 server answers at {endpoint} ({error}): see --endpoint-url and AWS_ENDPOINT_URL"
        ) from None


def _region_of(bucket: str) -> str:
    """The region that AWS says a bucket is in; it says so to anybody."""
    import urllib3

    try:
        answer = urllib3.request(
            "HEAD", f"https://{bucket}.s3.amazonaws.com", timeout=5, retries=False, redirect=False
        )
    except urllib3.exceptions.HTTPError:
        return "us-east-1"
    return str(answer.headers.get("x-amz-bucket-region", "us-east-1"))


def _profile() -> Any:
    """Credentials by boto3 (profiles, single sign-on) where it is installed and there are such;
    obstore itself knows the environment's, a pod's, a container's and an instance's."""
    configured = "AWS_PROFILE" in os.environ or Path("~/.aws").expanduser().is_dir()
    if "AWS_ACCESS_KEY_ID" in os.environ or not configured or not find_spec("boto3"):
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # none configured
        return None
