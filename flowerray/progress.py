"""Progress on stderr: one line that moves on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

SECONDS_BETWEEN_LINES = 10.0  # where stderr is a file or a pipe


def say(message: str) -> None:
    """One line of what is going on, on stderr."""
    _write(f"{message}\n")


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more: that ends no job
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


class Progress:
    """Counts photographs of `total`, `done` of which an earlier run has finished already."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self.rejected = what, total, done, 0
        self._before = done
        self._started = self._said = time.monotonic()
        self._ready = 0.0
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        if done:
            say(f"{what}: {done:,} of {total:,} are done already, going on from there")

    def ready(self, seconds_ago: float) -> None:
        """The first actor was ready this long ago: start-up is no part of the rate."""
        self._ready = self._ready or max(self._started, time.monotonic() - seconds_ago)

    def add(self, photographs: int, rejected: int) -> None:
        """`photographs` more are done, `rejected` of them without a result."""
        self.done += photographs
        self.rejected += rejected
        now = time.monotonic()
        if self._terminal:
            _write(f"\r\x1b[K{self._line(now)}")
        elif now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            say(self._line(now))

    def finish(self) -> tuple[float, float]:
        """End the line; returns the seconds of start-up and those of work after it."""
        now = time.monotonic()
        if self.done > self._before:
            _write("\r\x1b[K" if self._terminal else "")
            say(self._line(now))
        ready = self._ready or now
        return ready - self._started, now - ready

    def _line(self, now: float) -> str:
        rate = (self.done - self._before) / max(now - self._ready, 1e-9)
        left = self.total - self.done
        eta = f", {_clock(left / rate)} left" if left and rate else ""
        rejected = f", {self.rejected:,} rejected" if self.rejected else ""
        share = self.done / max(self.total, 1)
        return (
            f"{self.what}: {self.done:,} of {self.total:,} photographs ({share:.0%}), "
            f"{rate:.1f}/s{eta}{rejected}"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
