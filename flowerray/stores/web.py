"""Web servers: photographs by their addresses, and what servers list of directories."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow as pa
import urllib3
from urllib3.exceptions import HTTPError

from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores import addresses, credentials
from flowerray.stores.about import About
from flowerray.stores.fetched import in_memory
from flowerray.stores.limit import too_large

RETRIES = urllib3.Retry(
    total=8,
    backoff_factor=0.2,
    backoff_jitter=0.2,
    backoff_max=20,
    status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False,
)
CONNECTIONS = 64
READ_BYTES = 1 << 20
REDIRECTS = 5  # that are followed for one file
DEPTH = 64  # of directories that are listed
PAGES = 100_000  # of a listing
PAGE_BYTES = 64 << 20  # of each
LEAST_BYTES, EACH_SECONDS = 64 << 10, 60  # of a file: a server that sends fewer is given up


class WebStore:
    """See ``flowerray.stores.Store``; nothing is written to a web server."""

    def __init__(self, redirect_hosts: Collection[str] = ()) -> None:
        timeout = urllib3.Timeout(connect=10, read=60)
        self._pool = addresses.pool(maxsize=CONNECTIONS, retries=RETRIES, timeout=timeout)
        self._redirect_hosts = redirect_hosts

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """See Store."""
        parts, size = [], 0
        for part in self.pieces(uri):
            parts.append(part)
            size += len(part)
            if limit is not None and size > limit:
                raise too_large()
        return b"".join(parts)

    def pieces(self, uri: str) -> Iterator[bytes]:
        """See Store."""
        uri = credentials.bare(uri)
        with _os_errors():
            answer = self._answer("GET", uri)
            try:
                if answer.status in (404, 410):
                    raise FileNotFoundError(f"{uri} is not there")
                if answer.status != 200:
                    raise OSError(f"the server answers {answer.status} {answer.reason or ''}")
                yield from _received(answer)
            finally:
                answer.release_conn()

    def about(self, uri: str) -> About:
        """See Store: nothing where the server answers no HEAD, as with addresses that are signed
        for GET alone."""
        with _os_errors():
            answer = self._answer("HEAD", credentials.bare(uri))
            answer.release_conn()
        if answer.status in (404, 410):
            raise FileNotFoundError(f"{uri} is not there")
        if answer.status != 200:
            return About(None, None)
        size = answer.headers.get("content-length", "")
        tag = answer.headers.get("etag") or answer.headers.get("last-modified")
        return About(int(size) if size.isdecimal() else None, tag)

    def _answer(self, method: str, uri: str) -> urllib3.BaseHTTPResponse:
        """The answer behind all redirects."""
        at, login = credentials.signed(uri), credentials.login_of(uri)
        headers = urllib3.make_headers(basic_auth=unquote(login)) if login else {}
        for _ in range(REDIRECTS + 1):
            answer = self._pool.request(
                method, at, headers=headers, preload_content=False, redirect=False
            )
            target = answer.get_redirect_location()
            if not target:
                return answer
            answer.drain_conn()
            answer.release_conn()
            at, before = urljoin(at, target), at
            self._check_redirect(before, at)
            if urlsplit(at).netloc != urlsplit(before).netloc:
                headers = {}  # the login is the first host's
        raise OSError("the server redirects in a circle")

    def _check_redirect(self, before: str, after: str) -> None:
        here, there = urlsplit(before), urlsplit(after)
        if there.scheme not in credentials.WEB_SCHEMES:
            raise OSError("the server redirects to what is no web address")
        if (here.scheme, there.scheme) == ("https", "http"):
            raise OSError("the server redirects from https to http")
        same_place = here.hostname == there.hostname and (
            here.port == there.port or (here.scheme, there.scheme) == ("http", "https")
        )
        if not same_place and there.hostname not in self._redirect_hosts:
            raise OSError(
                f"the server redirects to {there.hostname}: --allow-redirects {there.hostname} "
                "lets it"
            )

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
        waiting, pages = [(uri, 0)], 0
        while waiting:
            directory, depth = waiting.pop()
            pages += 1
            if depth > DEPTH or pages > PAGES:
                raise FlowerrayError(
                    f"{uri} has more than {DEPTH} directories in one another or {PAGES:,} in all: "
                    "does the server list a directory in itself? Name photographs in a list instead"
                )
            links = self._links(directory)
            yield [(link, None) for link in links if not link.endswith("/")]
            below = [(link, depth + 1) for link in links if link.endswith("/")]
            waiting += reversed(below)

    def exists(self, uri: str) -> bool:
        """See Store."""
        with _os_errors():
            answer = self._answer("HEAD", uri)
            answer.release_conn()
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


def _received(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The body of `answer`. A table has no deadline as a photograph has, and a server that sends a
    byte now and then would never end it.

    Raises:
        OSError: the bytes come too slowly.
    """
    size, size_before, since = 0, 0, time.monotonic()
    while part := answer.read1(READ_BYTES):
        yield part
        size += len(part)
        if time.monotonic() - since > EACH_SECONDS:
            if size - size_before < LEAST_BYTES:
                raise OSError(f"the server sends fewer than {LEAST_BYTES:,} bytes a minute")
            size_before, since = size, time.monotonic()


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
        # What urllib3 says of an exhausted request begins with its address, perhaps a signed one.
        reason = getattr(error, "reason", None) or error
        raise OSError(str(reason).partition("\n")[0]) from None
