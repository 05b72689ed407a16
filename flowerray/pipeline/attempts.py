"""How far each try came: marks in ``OUT/.flowerray/attempts``, by which deaths are counted.

FIRST-ROW.tried      how often a shard was begun, and by which worker at last
FIRST-ROW.computing  that worker had begun to compute it
WORKER.starting      a worker that is not ready yet
WORKER.fault         what its process could tell as it died (Python's faulthandler)
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import uuid
from contextlib import suppress
from typing import TextIO

from flowerray.errors import FlowerrayError
from flowerray.outputs.lease import SCRATCH
from flowerray.outputs.manifest import Shard
from flowerray.stores.folder import Folder

ATTEMPTS = f"{SCRATCH}/attempts"
# A shard that took its worker down this often may hold a photograph that did it: from then on its
# photographs are each read in a process of their own, and the guilty one alone is rejected.
TOGETHER = 2
MOST = 5  # deaths at one shard, and of workers that were not ready yet: then the job ends
IN_SILENCE = "it was ended from outside, as a system does for want of memory"


class Attempts:
    """The marks of one worker, and what it can tell of those before it."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.worker = folder, uuid.uuid4().hex[:12]
        self.fault: TextIO = sys.__stderr__  # type: ignore[assignment]  # a worker has one

    def begin(self, workers: int) -> None:
        """This worker, one of so many at a time, begins to load its model.

        Raises:
            FlowerrayError: too many before it died doing so.
        """
        before = [name for name in self.folder.names(ATTEMPTS) if name.endswith(".starting")]
        if len(before) >= workers + MOST:
            reasons = [self._reason(name.partition(".")[0]) for name in sorted(before)]
            told = next((reason for reason in reasons if reason != IN_SILENCE), IN_SILENCE)
            raise FlowerrayError(
                f"{MOST} workers died before they were ready: {told}. `flowerray doctor` shows "
                "what the machines can do"
            )
        self.folder.hint(f"{ATTEMPTS}/{self.worker}.starting", b"")
        if self.folder.is_local:
            with suppress(OSError):
                file = self.folder.file(f"{ATTEMPTS}/{self.worker}.fault")
                self.fault = open(file, "w")  # noqa: SIM115 - open as long as the process lives
        # Ray's own handlers would look up the name of each native call for minutes. It has enabled
        # Python's too, which are installed anew only if they were disabled.
        faulthandler.disable()
        for fatal in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL):
            signal.signal(fatal, signal.SIG_DFL)
        faulthandler.enable(self.fault, all_threads=False)

    def ready(self) -> None:
        """It has loaded its model."""
        self.folder.tidy(f"{ATTEMPTS}/{self.worker}.starting")

    def names(self) -> set[str]:
        """The marks that are there."""
        return self.folder.names(ATTEMPTS)

    def tried(self, shard: Shard, names: set[str]) -> int:
        """How often `shard` was begun, as far as marks of these `names` tell.

        Raises:
            FlowerrayError: too often; a photograph would have been found by now.
        """
        count, worker = 0, ""
        if _mark(shard, "tried") in names:
            with suppress(FileNotFoundError, ValueError):
                count, worker = _parsed(self.folder.read(f"{ATTEMPTS}/{_mark(shard, 'tried')}"))
        if count >= MOST:
            raise FlowerrayError(
                f"{MOST} workers died at shards/{shard.name}, and not by reading a photograph: "
                f"{self._reason(worker)}; fewer --actors or a smaller --batch-size take less "
                "memory. What is committed stays"
            )
        return count

    def was_computing(self, shard: Shard, names: set[str]) -> bool:
        """Whether the last try had begun to compute `shard`."""
        return _mark(shard, "computing") in names

    def mark_tried(self, shard: Shard, count: int) -> None:
        """`shard` is begun for the `count`th time."""
        text = f"{count} {self.worker}"
        self.folder.hint(f"{ATTEMPTS}/{_mark(shard, 'tried')}", text.encode())

    def mark_computing(self, shard: Shard) -> None:
        """`shard` begins to be computed."""
        self.folder.hint(f"{ATTEMPTS}/{_mark(shard, 'computing')}", b"")

    def unmark(self, shard: Shard) -> None:
        """`shard` is committed."""
        self.folder.tidy(*(f"{ATTEMPTS}/{_mark(shard, step)}" for step in ("tried", "computing")))

    def _reason(self, worker: str) -> str:
        """How `worker` died, as far as it could tell."""
        if worker and self.folder.is_local:
            with suppress(OSError):
                text = self.folder.read(f"{ATTEMPTS}/{worker}.fault").decode("utf-8", "replace")
                said = [line for line in text.splitlines() if line.strip()]
                if said:
                    at = next((line.strip() for line in said if line.startswith("  File ")), "")
                    return f"{said[0].rstrip('!')} ({at})" if at else said[0]
        return IN_SILENCE


def forgive(folder: Folder) -> None:
    """A new run counts deaths anew: what was to mend may be mended. A shard that may hold a
    photograph that kills stays one."""
    for name in sorted(folder.names(ATTEMPTS)):
        if name.endswith((".starting", ".fault")):
            folder.tidy(f"{ATTEMPTS}/{name}")
        elif name.endswith(".tried"):
            with suppress(OSError, ValueError):
                count, worker = _parsed(folder.read(f"{ATTEMPTS}/{name}"))
                if count > TOGETHER:
                    folder.hint(f"{ATTEMPTS}/{name}", f"{TOGETHER} {worker}".encode())


def _mark(shard: Shard, step: str) -> str:
    return f"{shard.first_row:012d}.{step}"


def _parsed(mark: bytes) -> tuple[int, str]:
    count, _, worker = mark.decode().partition(" ")
    return int(count), worker
