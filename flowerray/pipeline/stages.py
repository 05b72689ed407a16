"""The stages of a photograph's way as plain objects: fetch and decode ahead, compute in batches.

They know no Ray: a script drives them in its own process (see benchmarks/gpu.py), an actor in its.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerray.outputs.manifest import Shard
from flowerray.sources import photographs
from flowerray.sources.isolated import IsolatedReader
from flowerray.sources.photographs import Limits, Rejected, Wanted
from flowerray.stores import is_remote

Outcome = Any  # of one photograph: its pixels, what was computed of them, or why not (Rejected)
Read = Callable[..., Outcome]

REQUESTS_IN_FLIGHT = 32  # to the stores of photographs and shards
AHEAD_BYTES = 256 << 20  # of files that are read ahead, unless one alone is larger


@dataclass(frozen=True)
class Listed:
    """A photograph to read: its size in bytes where it was listed, whether to read it in a process
    of its own, and the shard that it belongs to, for who wants to know."""

    uri: str
    size: int | None = None
    isolate: bool = False
    shard: Shard | None = None


class ReadAhead:
    """Fetches and decodes photographs in threads, some ahead of who takes them.

    Args:
        wanted: how the pixels are to be.
        threads: those that decode; waiting for a store takes no CPU and has its own, far more.
        ahead: photographs that are in the making at a time, as far as AHEAD_BYTES allow.
        timed: wraps each call that decodes, to count its time.
    """

    def __init__(
        self,
        wanted: Wanted,
        limits: Limits,
        threads: int,
        ahead: int,
        timed: Callable[[Read], Read] = lambda read: read,
    ) -> None:
        self.wanted, self.limits, self.ahead = wanted, limits, ahead
        self.storage = ThreadPoolExecutor(REQUESTS_IN_FLIGHT, thread_name_prefix="storage")
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._read_and_decode = timed(photographs.read_and_decode)
        self._decode = timed(photographs.decoded)
        self._isolated = timed(IsolatedReader())
        self._fetched_bytes = self._fetched = 0

    def decoded(
        self,
        listed: Iterable[Listed],
        result_of: Callable[[Any, Future[Outcome]], Outcome] = lambda one, pending: (
            pending.result()
        ),
    ) -> Iterator[Outcome]:
        """Each photograph's pixels uint8 (size, size, 3) or rejection, in order. `result_of` waits
        for the oldest one."""
        window: deque[tuple[Listed, Future[Outcome]]] = deque()
        sizes: deque[int] = deque()  # of those in the window, in bytes before they are decoded
        for one in listed:
            if one.isolate:
                while window:
                    yield result_of(*window.popleft())
                sizes.clear()
                yield self._isolated(one.uri, one.size, self.wanted, self.limits)
                continue
            window.append((one, self._submitted(one)))
            # A table doesn't say how large its photographs are: the mean of those so far.
            mean = self._fetched_bytes // max(1, self._fetched)
            sizes.append(mean if one.size is None else one.size)
            while len(window) > self.ahead or (len(window) > 1 and sum(sizes) > AHEAD_BYTES):
                sizes.popleft()
                yield result_of(*window.popleft())
        while window:
            yield result_of(*window.popleft())

    def _submitted(self, one: Listed) -> Future[Outcome]:
        asked = one.uri, one.size, self.wanted, self.limits
        if not is_remote(one.uri):
            return self._threads.submit(self._read_and_decode, *asked)
        data = self.storage.submit(self._fetch, one.uri, one.size)
        return self._threads.submit(self._decode, data.result, self.wanted, self.limits)

    def _fetch(self, uri: str, size: int | None) -> bytes:
        data = photographs.read(uri, size, self.limits)
        self._fetched_bytes, self._fetched = self._fetched_bytes + len(data), self._fetched + 1
        return data


def computed(
    decoded: Iterable[Outcome], compute: Callable[[np.ndarray], Any], batch_size: int
) -> list[Outcome]:
    """Each photograph's result in place of its pixels: `compute` takes full batches, uint8 (n,
    size, size, 3), and returns one result a row. Rejections stay."""
    outcomes: list[Outcome] = []
    waiting: list[int] = []

    def compute_those() -> None:
        results = compute(np.stack([outcomes[i] for i in waiting]))
        for i, result in zip(waiting, results, strict=True):
            outcomes[i] = result
        waiting.clear()

    for outcome in decoded:
        outcomes.append(outcome)
        if not isinstance(outcome, Rejected):
            waiting.append(len(outcomes) - 1)
        if len(waiting) == batch_size:
            compute_those()
    if waiting:
        compute_those()
    return outcomes
