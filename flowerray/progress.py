"""What people are told on stderr while a job runs: lines, and how far it is.

Progress is one line that moves on a terminal, a bar in a notebook, a plain line now and then
elsewhere. No list that is told is longer than MOST_TOLD.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

SECONDS_BETWEEN_LINES = 10.0  # where stderr is a file or a pipe
SECONDS_BETWEEN_MOVES = 0.1  # on a terminal, in a notebook
SECONDS_TO_A_WORD = 1.0  # after which a command that has said nothing says that it has begun
MOST_TOLD = 20  # of errors, findings, classes: the rest is in a file that is named
CLEARED = "\r\x1b[K"

_moving = False  # whether a line of progress stands at the cursor
_open_bar: Any = None  # a notebook's
_said = 0  # writes so far


def say(message: str) -> None:
    """One line of what is going on, on stderr."""
    if _open_bar is not None:  # it may be one of text, which would be torn apart
        _open_bar.write(message, file=sys.stderr)
    else:
        _write(f"{CLEARED if _moving else ''}{message}\n")


def some_of(lines: Sequence[str], rest: str | Callable[[], str]) -> list[str]:
    """The first MOST_TOLD of `lines`, and one that says how many more are in `rest`, if any are: a
    file, or what writes one then."""
    more = len(lines) - MOST_TOLD
    if more <= 0:
        return list(lines)
    return [*lines[:MOST_TOLD], f"and {more:,} more: {rest if isinstance(rest, str) else rest()}"]


def some_names(names: Iterable[str]) -> str:
    """`names` with commas between, MOST_TOLD of them at most."""
    listed = list(names)
    more = len(listed) - MOST_TOLD
    return ", ".join(listed[:MOST_TOLD]) + (f" and {more:,} more" if more > 0 else "")


def rest_in_a_file(name: str, text: str) -> str:
    """Keep `text`, of which only some is told, in a new file of the temporary directory, whose name
    has `name` in it; its path."""
    stem, dot, ending = name.rpartition(".")
    with tempfile.NamedTemporaryFile(
        *("w", -1, "utf-8"),
        prefix=f"flowerray-{stem}-",
        suffix=dot + ending,
        errors="surrogateescape",
        delete=False,
    ) as stream:
        stream.write(text)
    return stream.name


@contextmanager
def promptly(what: str) -> Iterator[None]:
    """Have a block that says nothing for a moment, while it imports what it needs, say that
    `what` has begun."""
    before = _said

    def speak() -> None:
        if _said == before:
            say(f"{what}: starting")

    timer = threading.Timer(SECONDS_TO_A_WORD, speak)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _write(text: str) -> None:
    global _moving, _said
    _moving, _said = not text.endswith(("\n", CLEARED)), _said + 1
    with suppress(OSError, ValueError):  # nobody reads it any more: that ends no job
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


class Progress:
    """Counts photographs of `total`, `done` of which an earlier run has finished already; None
    where nobody knows yet how many there are, of which nothing is told that is over in a moment."""

    def __init__(self, what: str, total: int | None, done: int = 0) -> None:
        self.what, self.total, self.done, self.rejected = what, total, done, 0
        self._before = done
        self._started = time.monotonic()
        self._ready = self._started if total is None else 0.0
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._notebook = _in_notebook()
        self._bar: Any = None
        self._shown = False
        self._next = self._started + SECONDS_TO_A_WORD
        if total and done:
            say(f"{what}: {done:,} of {total:,} are done already, going on from there")
        elif total:
            self._show(self._started)

    def ready(self, seconds_ago: float) -> None:
        """The first actor was ready this long ago: start-up is no part of the rate."""
        self._ready = self._ready or max(self._started, time.monotonic() - seconds_ago)

    def add(self, photographs: int, rejected: int = 0) -> None:
        """`photographs` more are done, `rejected` of them without a result."""
        self.done += photographs
        self.rejected += rejected
        now = time.monotonic()
        if now >= self._next:
            self._show(now)

    def finish(self) -> tuple[float, float]:
        """End the line; returns the seconds of start-up and those of work after it."""
        global _open_bar
        now = time.monotonic()
        if self._bar is not None:
            self._show(now)
            self._bar.close()
            _open_bar = None
        elif self.done > self._before and (self._shown or self.total is not None):
            say(self._line(now))
        elif self._shown and self._terminal:
            _write(CLEARED)
        ready = self._ready or now
        return ready - self._started, now - ready

    def _show(self, now: float) -> None:
        global _open_bar
        moves = self._notebook or self._terminal
        self._next = now + (SECONDS_BETWEEN_MOVES if moves else SECONDS_BETWEEN_LINES)
        self._shown = True
        if self._notebook:
            if self._bar is None:
                self._bar = _open_bar = _bar(self.what, self.total, self._before)
            if self.rejected:
                self._bar.set_postfix_str(f"{self.rejected:,} rejected", refresh=False)
            self._bar.update(self.done - self._bar.n)
        elif self._terminal:
            _write(f"{CLEARED}{self._line(now)}")
        else:
            say(self._line(now))

    def _line(self, now: float) -> str:
        if self.total is None:
            counted = f"{self.done:,} so far"
        elif self.done == self._before:
            return f"{self.what}: {self.total - self.done:,} photographs to do"
        else:
            share = self.done / max(self.total, 1)
            counted = f"{self.done:,} of {self.total:,} photographs ({share:.0%})"
        rate = (self.done - self._before) / max(now - self._ready, 1e-9)
        left = (self.total or self.done) - self.done
        eta = f", {clock(left / rate)} left" if left and rate else ""
        rejected = f", {self.rejected:,} rejected" if self.rejected else ""
        return f"{self.what}: {counted}, {rate:,.1f}/s{eta}{rejected}"


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook: IPython with a shell that is reached by ZMQ."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return any(made.__name__ == "ZMQInteractiveShell" for made in type(shell).__mro__)


def _bar(what: str, total: int | None, done: int) -> Any:
    with warnings.catch_warnings():  # without ipywidgets it is a bar of text, which will do
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=" photographs",
        mininterval=0,  # ours is the pace
    )


def clock(seconds: float) -> str:
    """`seconds` as 0:05, 12:05 or 1:12:05."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
