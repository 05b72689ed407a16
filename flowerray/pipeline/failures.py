"""What Ray raises, as one line that says what went wrong and what mends it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from flowerray.errors import GO_ON, FlowerrayError


@contextmanager
def errors_of_ours() -> Iterator[None]:
    """Ray wraps what an actor or task raised; a FlowerrayError comes out as it was."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        # Who keeps the exception would keep Ray Data's actors too, and their CPUs.
        traceback.clear_frames(error.__traceback__)
        cause: BaseException | None = error
        while cause is not None:
            # Ray's wrapper is an instance of the wrapped error's class too, with its traceback.
            if isinstance(cause, FlowerrayError) and not isinstance(cause, RayError):
                message = str(cause).partition("\n")[0]  # Ray Data adds lines of advice
                raise type(cause)(message) from None
            cause = _raised(cause) or cause.__cause__
        reason, mend = _reason(error), _mend(error)
        raise FlowerrayError(f"Ray failed: {reason}; what is committed stays{mend}") from error


def _reason(error: BaseException) -> str:
    """On one line: what was raised in an actor or a task, or else Ray's own last line."""
    cause = _raised(error)
    if cause is None:
        return str(error).strip().rpartition("\n")[2] or type(error).__name__
    said = re.split("Failed to apply UDF|To change retry", str(cause))[0]  # Ray Data's advice
    return f"{type(cause).__name__}: {' '.join(said.split())}"


def _raised(error: BaseException) -> BaseException | None:
    """What code of ours or a library's raised in an actor or a task; None where Ray lost it."""
    return getattr(error, "cause", None)


def _mend(error: BaseException) -> str:
    """What helps: to go on only where the same would not happen again."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.WorkerCrashedError,
        exceptions.ObjectLostError,
        exceptions.LocalRayletDiedError,
    )
    raised = _raised(error)
    if isinstance(error, exceptions.OutOfMemoryError) or isinstance(raised, MemoryError):
        return f": with fewer --actors, which need less memory, {GO_ON}"
    if isinstance(error, exceptions.OutOfDiskError):
        return f": make room on the disk of Ray's directory, then {GO_ON}"
    if isinstance(raised, OSError):
        return f": once that is mended, {GO_ON}"
    init_failed = isinstance(error, exceptions.RayActorError) and error.actor_init_failed
    if raised is None and isinstance(error, lost) and not init_failed:
        return f", {GO_ON}"
    return _log_of(error)


def _log_of(error: BaseException) -> str:
    """Where the process that raised `error` wrote, by what Ray says of it."""
    of = re.search(r"\bpid=(\d+), ip=([^,)\s]+)", str(error))
    if not of:
        return "; the logs of Ray's session (session_latest/logs in its directory) tell more"
    return (
        f"; the worker's log is session_latest/logs/worker-*-{of[1]}.err in Ray's directory "
        f"(/tmp/ray, or ray/ in TMPDIR) on {of[2]}"
    )
