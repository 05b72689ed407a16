"""What a storage says of a file."""

from __future__ import annotations

from typing import NamedTuple

PIECE_BYTES = 8 << 20  # of a file that is read in pieces


class About(NamedTuple):
    """Of a file its size in bytes, and what is another text when it changes; None where the storage
    doesn't say."""

    size: int | None
    tag: str | None
