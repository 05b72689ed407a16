"""What Ray exports to Prometheus of a job: how far it is, and what its actors do.

Ray's agent on each node adds up what the processes there send it every ten seconds, and serves it
until the node goes. So everything is a counter, which stays true after its process has ended (of a
gauge the agent forgets the value), but for the queue, which is of the moment. Seconds are counters
too: of a histogram's sum the agent keeps only an approximation.
"""

from __future__ import annotations

import os
import string
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import quote_from_bytes

from flowerray.progress import say
from flowerray.sources.photographs import Rejected

# Ray puts ray_ before each name and, if it is a counter, _total after it. Their label is `command`:
# Prometheus has a `job` of its own.
OF_A_RUN = {
    "flowerray_run_listed": "photographs in the run's manifest",
    "flowerray_run_done": "of those, the ones with a row committed, in this run or before it",
    "flowerray_run_rejected": "of those done in this run, the ones rejected, by reason",
}
OF_AN_ACTOR = {
    "flowerray_photographs": "photographs computed and committed",
    "flowerray_rejected": "of those, the ones rejected, by reason",
    "flowerray_shards": "shards committed",
    "flowerray_decode_seconds": "seconds of threads that read and decoded",
    "flowerray_compute_seconds": "seconds in which the base computed",
}
WAITING = "flowerray_waiting_photographs"
DESCRIPTIONS = OF_A_RUN | OF_AN_ACTOR | {WAITING: "photographs decoded and waiting for the base"}


class RunMetrics:
    """How far a run is, told by its driver: the one process that every commit comes to once."""

    # What this process has counted so far by command and output: it may go on with a run.
    _counted: ClassVar[dict[tuple[str, str], list[int]]] = {}

    def __init__(self, what: str, output: str, listed: int, done: int) -> None:
        self._counters = _Counters(OF_A_RUN, command=what, output=output)
        self._known = self._counted.setdefault((what, output), [0, 0])
        self._counters.add("flowerray_run_listed", listed - self._known[0])
        self._counters.add("flowerray_run_done", done - self._known[1])
        self._known[:] = max(listed, self._known[0]), max(done, self._known[1])

    def add(self, photographs: int, rejected: Iterable[str]) -> None:
        """`photographs` more are done; `rejected` holds the reason of each one without a result."""
        self._counters.add("flowerray_run_done", photographs)
        self._known[1] += photographs
        self._counters.add_each("flowerray_run_rejected", rejected)


class ActorMetrics:
    """What one actor of command `what` does. Kept up to date per batch and per shard."""

    def __init__(self, what: str) -> None:
        self._counters = _Counters((*OF_AN_ACTOR, WAITING), command=what)
        # The seconds that each photograph took that is decoded and waits; threads append to it.
        self._decoded: deque[float] = deque()

    def timed(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """`read`, which decodes a photograph or rejects it, with the time that it takes counted."""

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            outcome = read(*arguments)
            seconds = time.perf_counter() - started
            if isinstance(outcome, Rejected):
                self._counters.add("flowerray_decode_seconds", seconds)
            else:
                self._decoded.append(seconds)
            return outcome

        return timed

    @contextmanager
    def batch(self, photographs: int) -> Iterator[None]:
        """The block computes so many decoded photographs."""
        taken = min(photographs, len(self._decoded))
        decoding = sum(self._decoded.popleft() for _ in range(taken))
        self._counters.add("flowerray_decode_seconds", decoding)
        self._counters.set(WAITING, len(self._decoded))
        started = time.perf_counter()
        yield
        self._counters.add("flowerray_compute_seconds", time.perf_counter() - started)

    def committed(self, photographs: int, rejected: Iterable[str]) -> None:
        """A shard is: of its photographs so many were computed, `rejected` for these reasons."""
        self._counters.add("flowerray_shards", 1)
        self._counters.add("flowerray_photographs", photographs)
        self._counters.add_each("flowerray_rejected", rejected)


class _Counters:
    """Counters, and the one gauge, with the same `tags`; those of rejected photographs have the
    reason too. What Ray refuses of them is told once and ends no job."""

    def __init__(self, names: Iterable[str], **tags: str) -> None:
        self._metrics: dict[str, Any] = {}
        with _told():
            from ray.util import metrics

            ascii_tags = {key: _ascii(text) for key, text in tags.items()}
            for name in names:
                keys = (*tags, "reason") if name.endswith("_rejected") else tuple(tags)
                kind = metrics.Gauge if name == WAITING else metrics.Counter
                metric = kind(name, DESCRIPTIONS[name], keys)
                self._metrics[name] = metric.set_default_tags(ascii_tags)

    def add(self, name: str, value: float, **tags: str) -> None:
        if value > 0 and name in self._metrics:  # Ray refuses to add nothing
            with _told():
                self._metrics[name].inc(value, {key: _ascii(tags[key]) for key in tags})

    def add_each(self, name: str, reasons: Iterable[str]) -> None:
        for reason, photographs in Counter(reasons).items():
            self.add(name, photographs, reason=reason)

    def set(self, name: str, value: float) -> None:
        if name in self._metrics:
            with _told():
                self._metrics[name].set(value)


def _ascii(text: str) -> str:
    """`text` with all but ASCII percent-encoded: Ray takes nothing else for a tag."""
    return quote_from_bytes(os.fsencode(text), safe=string.punctuation.replace("%", "") + " ")


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with metrics in the block is told, once a process, and ends nothing."""
    global _was_told
    try:
        yield
    except Exception as error:
        if not _was_told:
            _was_told = True
            reason = str(error).partition("\n")[0]
            say(f"flowerray: no metrics for Prometheus: {type(error).__name__}: {reason}")


_was_told = False
