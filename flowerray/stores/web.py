"""Web servers: photographs by their addresses, and what servers list of directories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import pyarrow as pa
import urllib3
from urllib3.exceptions import HTTPError

from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores.fetched import in_memory
from flowerray.stores.limit import read_at_most

RETRIES = urllib3.Retry(
    total=8,
    backoff_factor=0.2,
    backoff_jitter=0.2,
    backoff_max=20,
    status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False,
)
CONNECTIONS = 64
PAGE_BYTES = 64 << 20  # of a listing


class WebStore:
    """See ``flowerray.stores.Store``; nothing is written to a web server."""

    def __init__(self) -> None:
        timeout = urllib3.Timeout(connect=10, read=60)
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=RETRIES, timeout=timeout)

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """See Store."""
        with _os_errors():
            answer = self._pool.request("GET", uri, preload_content=False)
            try:
                if answer.status in (404, 410):
                    raise FileNotFoundError(f"{uri} is not there")
                if answer.status != 200:
                    raise OSError(f"the server answers {answer.status} {answer.reason or ''}")
                return read_at_most(answer.read, limit)
            finally:
                answer.release_conn()

    def open(
        self, uri: str, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> pa.NativeFile:
        """See Store."""
        return in_memory(self.read(uri))

    def create(self, uri: str, beside: str) -> AbstractContextManager[BinaryIO]:
        """Raises UsageError."""
        raise UsageError(f"{uri} is on a web server: nothing can be written there")

    def names(self, uri: str) -> set[str]:
        """See Store."""
        return {urlsplit(link).path.rstrip("/").rpartition("/")[2] for link in self._links(uri)}

    def files(self, uri: str) -> Iterator[list[tuple[str, int | None]]]:
        """See Store: by the links of the page at `uri` that lead below it, as the listings of
        nginx, Apache and Python's http.server have them."""
        links = self._links(uri)
        yield [(link, None) for link in links if not link.endswith("/")]
        for link in links:
            if link.endswith("/"):
                yield from self.files(link)

    def exists(self, uri: str) -> bool:
        """See Store."""
        with _os_errors():
            answer = self._pool.request("HEAD", uri)
        if answer.status in (404, 410):
            return False
        if answer.status != 200:
            raise OSError(f"the server answers {answer.status} {answer.reason or ''}")
        return True

    def delete(self, uri: str) -> None:
        """Raises UsageError."""
        raise UsageError(f"{uri} is on a web server: nothing can be removed there")

    def delete_files(self, uris: Sequence[str]) -> None:
        """Raises UsageError."""
        raise UsageError(f"{uris[0]} is on a web server: nothing can be removed there")

    def delete_empty(self, uri: str) -> None:
        """See Store: there are no directories."""

    def swap(self, uri: str, expected: bytes | None, data: bytes | None) -> bool:
        """Raises UsageError."""
        raise UsageError(f"{uri} is on a web server: nothing can be written there")

    def _links(self, uri: str) -> list[str]:
        directory = uri.rstrip("/") + "/"
        page = _Links()
        page.feed(self.read(directory, PAGE_BYTES).decode("utf-8", "replace"))
        if not page.is_html:
            raise FlowerrayError(f"{uri} is no listing of a directory: name photographs in a list")
        links = (urljoin(directory, link) for link in page.found)
        below = {link for link in links if link.startswith(directory) and link != directory}
        # Links that sort a listing have a query, hidden files a dot.
        names = {link: link[len(directory) :].rstrip("/") for link in below if "?" not in link}
        return sorted(n for n in names if "/" not in names[n] and not names[n].startswith("."))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.is_html = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.is_html = True
        if tag == "a":
            self.found += [value for name, value in attributes if name == "href" and value]


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        raise OSError(str(error).partition("\n")[0]) from None
