"""Reading a photograph in a process of its own, for the one that takes its process down."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from flowerray import stores
from flowerray.sources import photographs
from flowerray.sources.photographs import Limits, Rejected, Wanted

MEMORY_BYTES = 4 << 30
START_SECONDS = 60  # of the process, before its first photograph


class IsolatedReader:
    """Reads and decodes as the actor does, but survives a crash, a hang or a glut of memory."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __call__(
        self, uri: str, size: int | None, wanted: Wanted, limits: Limits
    ) -> np.ndarray | Rejected:
        """The photograph's pixels, or its rejection; `crashed` if it took the process down."""
        seconds = limits.read_seconds + limits.decode_seconds
        begins = self._pool is None
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, spawn, _prepare, (stores.in_use(),))
        try:
            pending = self._pool.submit(photographs.read_and_decode, uri, size, wanted, limits)
            return pending.result(seconds + START_SECONDS if begins else seconds)
        except BrokenProcessPool:
            self.close()
            return Rejected("crashed", "its process died reading it")
        except TimeoutError:
            self.close()
            return Rejected(
                "crashed",
                f"not decoded in {limits.decode_seconds:g} s; --decode-timeout is the limit",
            )

    def close(self) -> None:
        """End the process, in whatever state."""
        if self._pool is not None:
            processes: dict[int, Any] = dict(getattr(self._pool, "_processes", None) or {})
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes.values():
                process.kill()  # one that hangs would not end by itself
            self._pool = None


def _prepare(access: stores.Access) -> None:
    stores.use(access)
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
