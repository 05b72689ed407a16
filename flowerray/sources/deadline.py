"""A call that may never return: a stalled mount, say, or a server that sends a byte a second."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from flowerray.errors import FlowerrayError

Result = TypeVar("Result")

MOST_OVERDUE = 128  # calls of a process that were given up and have not ended
_overdue: set[threading.Thread] = set()


class Overdue(Exception):
    """A call took longer than it may."""


class StorageHangs(FlowerrayError):
    """So many calls are overdue that no other will do better."""


def within(seconds: float, call: Callable[..., Result], *arguments: Any) -> Result:
    """What `call` of `arguments` returns or raises. Its thread is left behind where it is overdue:
    nothing can end a read that the system doesn't come back from.

    Raises:
        Overdue: it takes longer than `seconds`.
        StorageHangs: so many others were given up before.
    """
    answer: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(call(*arguments))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="read", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if answer:
        return answer[0]
    _overdue.difference_update([other for other in _overdue if not other.is_alive()])
    _overdue.add(thread)
    if len(_overdue) > MOST_OVERDUE:
        raise StorageHangs(
            f"{MOST_OVERDUE} reads have not ended after {seconds:g} s each, the last of "
            f"{arguments[0]}: see whether the disk or the server still answers"
        )
    raise Overdue
