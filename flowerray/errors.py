"""What flowerray says when it can't go on: one line with what is wrong and how to mend it."""

from __future__ import annotations

GO_ON = "run the same command again to go on"  # where a job stopped that another run would finish


class FlowerrayError(Exception):
    """A job can't be done as asked; the message names the thing at fault and the mend."""

    exit_code = 1


class UsageError(FlowerrayError):
    """The call itself is wrong: an option out of range, or options that contradict each other."""

    exit_code = 2
