"""How much of a file a store reads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable


def read_at_most(read: Callable[[int | None], bytes], limit: int | None) -> bytes:
    """What `read` of a number of bytes, or of None for all, gives.

    Raises:
        OSError: there are more bytes than `limit`, with ``errno.EFBIG``.
    """
    data = read(None if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise too_large()
    return data


def too_large() -> OSError:
    """The error of a file that is larger than a limit."""
    return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
