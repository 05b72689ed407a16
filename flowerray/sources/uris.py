"""From a path as a person or program wrote it, in a table or list, to the uri that is opened."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import takewhile

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.sources import names, text_tables
from flowerray.stores import credentials, is_remote, local_uri

WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")


def resolved(written: str, folder: str, place: str) -> str:
    """The uri of what stands as `written` in a table of the directory `folder`, which relative
    paths count from.

    What it could mean is tried in order, and the first that exists is taken: as it is, without
    quotes and spaces at its ends, with / for a backslash, and in the other Unicode form. A path
    without any of these isn't looked for: a table may name a hundred million. `place` is where it
    stands, for a message.

    Raises:
        FlowerrayError: it is an absolute path of Windows.
    """
    if "://" in written and is_remote(_plain(written)):
        return credentials.bare(_plain(written))
    path = os.fsdecode(stores.local_path(written)) if is_file_uri(written) else written
    if not is_odd(path):
        return local_or_remote(path, folder)
    for form in _forms(path):
        uri = local_or_remote(form, folder)
        found = None if is_remote(uri) else _existing(uri)
        if found is not None:
            return found
    if WINDOWS.match(form):
        raise FlowerrayError(
            f"{place} names {form}, an absolute path of Windows: make it relative to the table, or "
            "put this machine's directory in its place"
        )
    return local_or_remote(form.replace("\\", "/"), folder)


def of_cell(cell: bytes | str, folder: str, place: str) -> str:
    """As `resolved`, of a cell that ``flowerray.sources.tables`` read, whose bytes may be no UTF-8.

    Raises:
        FlowerrayError: they aren't, and no file has such a name.
    """
    written = os.fsdecode(cell)
    uri = resolved(written, folder, place)
    utf8 = written.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in written)
    if not utf8 and (is_remote(uri) or not os.path.lexists(stores.local_path(uri))):
        raise text_tables.not_utf8(place)
    return uri


def key(uri: str) -> str:
    """What the uris of one photograph, however it is spelled, share."""
    return names.same(uri)


def shared_folder(uris: Iterable[str]) -> str:
    """The folder that all of `uris` lie in, at any depth; "" where they share none. Of uris in
    order the first and the last will do."""
    folders = zip(*(uri.split("/")[:-1] for uri in uris), strict=False)
    return "/".join(one for one, *_ in takewhile(lambda same: len(set(same)) == 1, folders))


def is_file_uri(written: str) -> bool:
    """Whether it is ``file:/path``, ``file:///path`` or ``file://localhost/path``."""
    return written[:6].lower() == "file:/"


def is_odd(path: str) -> bool:
    """Whether `path` may be another's on this machine than it says."""
    plain = "\\" not in path and path == _plain(path) and path[1:3] != ":/"
    if plain and not path.isascii():
        plain = all(unicodedata.is_normalized(form, path) for form in ("NFC", "NFD"))
    return not plain


def local_or_remote(path: str, folder: str) -> str:
    """`path`, absolute or of the directory `folder`, as a uri."""
    if not path.startswith("/"):
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        path = f"{folder}/{path}"
    return path if is_remote(path) else local_uri(os.fsencode(path))


def _forms(path: str) -> Iterator[str]:
    plain = _plain(path)
    yield path
    if "\\" in plain and not WINDOWS.match(plain):
        yield plain.replace("\\", "/")
    yield plain


def _plain(path: str) -> str:
    """`path` without quotes around it, and without spaces at its ends."""
    plain = path.strip()
    if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'":
        plain = plain[1:-1].strip()
    return plain


def _existing(uri: str) -> str | None:
    """The uri of the file at the local `uri`, each part of whose path may be there in another
    Unicode form; None where there is none."""
    path = os.fsdecode(stores.local_path(uri))
    if os.path.lexists(path):
        return uri
    here = "/"
    for part in path.split("/")[1:]:
        for form in (part, *(unicodedata.normalize(f, part) for f in ("NFC", "NFD"))):
            if os.path.lexists(os.path.join(here, form)):
                here = os.path.join(here, form)
                break
        else:
            return None
    return local_uri(os.fsencode(here))
