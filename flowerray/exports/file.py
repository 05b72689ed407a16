"""A file that an export writes: whole or not there, and in the place of no other's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.stores import is_remote
from flowerray.stores.folder import whole_file


@contextmanager
def own_file(out: str, format: str, *beginnings: bytes) -> Iterator[BinaryIO]:
    """The file `out`, to write for the length of the block; files of this `format` begin so.

    Raises:
        FlowerrayError: something else is there, or it can't be written.
    """
    _check_replaceable(out, format, beginnings)
    with whole_file(out) as stream:
        yield stream


def _check_replaceable(out: str, format: str, beginnings: tuple[bytes, ...]) -> None:
    """Refuse to replace what no export of this format wrote: a device, say, or another file."""
    there = not is_remote(out) and os.path.lexists(out)
    if there and (os.path.islink(out) or not os.path.isfile(out)):
        raise FlowerrayError(
            f"{out} is a directory, link or device: --format {format} writes a file of its own"
        )
    try:
        with stores.store_at(out).open(out) as stream:
            beginning = stream.read(64)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FlowerrayError(f"can't use {out}: {error.strerror}; choose another --out") from None
    if beginning and not beginning.startswith(beginnings):
        raise FlowerrayError(
            f"{out} is there and is no {format} export: choose another --out, or delete it first"
        )
