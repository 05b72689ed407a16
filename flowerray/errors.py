"""What flowerray says when it can't go on: one line with what is wrong and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

GO_ON = "run the same command again to go on"  # where a job stopped that another run would finish


class FlowerrayError(Exception):
    """A job can't be done as asked; the message names the thing at fault and the mend."""

    exit_code = 1


class UsageError(FlowerrayError):
    """The call itself is wrong: an option out of range, or options that contradict each other."""

    exit_code = 2


def meant(written: str, known: Iterable[str]) -> str:
    """The end of a message on a word that is none of those `known`: which it is most like, if it
    is like any."""
    near = difflib.get_close_matches(written, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
