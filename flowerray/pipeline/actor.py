"""The Ray actor that holds a base and turns shards' photographs into committed shards.

Threads read and decode ahead while the base computes.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.prepared import PreparedBase
from flowerray.errors import FlowerrayError
from flowerray.outputs import shards
from flowerray.outputs.manifest import Shard, rows_of
from flowerray.outputs.record import Output
from flowerray.pipeline import shared_disk, tasks
from flowerray.pipeline.attempts import TOGETHER, Attempts
from flowerray.pipeline.metrics import ActorMetrics
from flowerray.pipeline.plan import Plan
from flowerray.pipeline.stages import Listed, Outcome, ReadAhead, computed
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores import Access


class Work(Protocol):
    """What a job does with pixels; it is sent to every actor."""

    def open(self, base: PreparedBase, threads: int) -> Callable[[np.ndarray], Any]:
        """Load the base; the call takes uint8 pixels (n, size, size, 3), one result a row."""

    def table(self, rows: pa.Table, outcomes: list[Outcome]) -> pa.Table:
        """The shard of manifest `rows`: each one's result, or why there is none."""


@dataclass(frozen=True)
class Job:
    """What every actor of a job is told."""

    what: str
    output: Output
    work: Work
    plan: Plan
    limits: Limits
    access: Access


HANDOVER_SECONDS = 10  # to mark a shard in, before this process ends
BATCH_SECONDS = 30 * 60  # of the engine with one batch: then it hangs, and its process is ended


@dataclass(frozen=True)
class ShardWork:
    """What is left to do of a shard: manifest `rows`, beside the rows `kept` of an earlier run."""

    rows: pa.Table
    kept: pa.Table | None
    attempt: int
    computed_before: bool

    @property
    def isolate(self) -> bool:
        """Whether to read each photograph in a process of its own."""
        return self.attempt > TOGETHER


class ShardActor:
    """One Ray actor: holds a base, and turns shards' photographs into committed shards."""

    def __init__(self, job: Job, base: Any) -> None:
        # Of an error that a constructor raises Ray brings the text alone: the first task raises it.
        self.unusable: FlowerrayError | None = None
        try:
            self._load(job, base)
        except FlowerrayError as error:
            self.unusable = error

    def _load(self, job: Job, base: Any) -> None:
        import ray

        tasks.set_up_worker(job.access)
        if job.output.folder.is_local:
            shared_disk.check_here(Path(job.output.folder.uri))
        self.output, self.work, self.limits = job.output, job.work, job.limits
        self.attempts = Attempts(self.output.folder)
        self.attempts.begin(job.plan.actors)
        group = job.plan.group_of_this_actor()
        self.batch_size = group.batch_size
        self.metrics = ActorMetrics(job.what)
        prepared: PreparedBase = ray.get(base)
        ahead = 2 * group.batch_size + group.threads
        self.reading = ReadAhead(
            prepared.spec, self.limits, group.threads, ahead, self.metrics.timed
        )
        self.compute = self.work.open(prepared, group.threads)
        self.attempts.ready()
        self.ready = time.time()

    def __call__(self, task: dict[str, np.ndarray]) -> Iterator[dict[str, list[Any]]]:
        if self.unusable is not None:
            raise self.unusable
        first_rows, rows = task["first_rows"][0], task["rows"][0]
        asked = [Shard(int(f), int(r)) for f, r in zip(first_rows, rows, strict=True)]
        marks = self.attempts.names()
        left = self.reading.storage.map(lambda shard: self._left_of(shard, marks), asked)
        work = {s: todo for s, todo in zip(asked, left, strict=True) if todo is not None}
        decoded = self.reading.decoded(self._listed(work), self._result_of)
        for shard in asked:
            done, redone = 0, 0
            if shard in work:
                rows, kept = work[shard].rows, work[shard].kept
                computing = self._hinted(self.attempts.mark_computing, shard)
                decoded_rows = islice(decoded, len(rows))
                outcomes = computed(decoded_rows, self._compute, self.batch_size)
                table = self.work.table(rows, outcomes)
                if kept is not None:
                    table = pa.concat_tables([kept, table]).sort_by("image_id")
                shards.write_shard(self.output, shard, table)
                computing.result()
                self._hinted(self.attempts.unmark, shard)
                done = len(rows)
                redone = done if work[shard].computed_before else 0
                rejected = [one.reason for one in outcomes if isinstance(one, Rejected)]
                self.metrics.committed(done, rejected)
            else:  # committed by one that could not report it any more
                rejected = self._rejected_of(shard)
            yield {
                "photographs": [shard.rows],
                "computed": [done],
                "redone": [redone],
                "rejected": [" ".join(rejected)],
                "actor_ready": [self.ready],
            }

    def _left_of(self, shard: Shard, marks: set[str]) -> ShardWork | None:
        """None where `shard` is committed already, as when an actor died in the midst of a task."""
        there = shards.read_shard(self.output, shard)
        retry = shard.name in self.output.retry
        if there is not None and not (retry and len(there) > there["error"].null_count):
            return None
        rows = rows_of(self.output.folder, self.output.manifest, shard)
        kept = None
        if there is not None:
            kept = there.filter(pc.is_null(there["error"]))
            rows = rows.filter(pc.is_valid(there["error"]))
            # What changed since it was listed is taken as it is now.
            rows = rows.set_column(4, rows.schema.field("size"), pa.nulls(len(rows), pa.int64()))
        tried = self.attempts.tried(shard, marks)
        return ShardWork(rows, kept, tried + 1, self.attempts.was_computing(shard, marks))

    def _rejected_of(self, shard: Shard) -> list[str]:
        there = shards.read_shard(self.output, shard)
        return [] if there is None else there["error"].drop_null().to_pylist()

    def _hinted(self, call: Callable[..., None], *arguments: Any) -> Future[None]:
        """Mark or unmark: at once on a disk, where it takes no time and the marks are then always
        those of the shard in the making; beside the computing in a store."""
        if not self.output.folder.is_local:
            return self.reading.storage.submit(call, *arguments)
        call(*arguments)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _listed(self, work: dict[Shard, ShardWork]) -> Iterator[Listed]:
        """The photographs of the shards. Each shard is marked while the one before is read: the
        mark must be there before a photograph that could take the process down is touched."""
        marked = (
            self._hinted(self.attempts.mark_tried, shard, left.attempt)
            for shard, left in work.items()
        )
        mark = next(marked, None)
        for shard, left in work.items():
            assert mark is not None  # there is one for each
            mark.result()
            mark = next(marked, None)
            rows = (left.rows[name].to_pylist() for name in ("uri", "size"))
            for uri, size in zip(*rows, strict=True):
                yield Listed(uri, size, left.isolate, shard)

    def _result_of(self, one: Listed, pending: Future[Outcome]) -> Outcome:
        """What came of a photograph that was read ahead. A decoder that doesn't come back
        takes this process with it: the next one reads the shard's photographs each in a process of
        its own."""
        if pending.done():
            return pending.result()
        seconds = self.limits.read_seconds + self.limits.decode_seconds
        with self._ended_after(seconds + HANDOVER_SECONDS):  # where it holds Python's lock, too
            try:
                return pending.result(seconds)
            except TimeoutError:
                assert one.shard is not None  # of `_listed`
                self.attempts.mark_tried(one.shard, TOGETHER)
                os._exit(1)

    @contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """End this process where the block takes longer, whatever it is at."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=self.attempts.fault)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _compute(self, pixels: np.ndarray) -> Any:
        with self.metrics.batch(len(pixels)), self._ended_after(BATCH_SECONDS):
            return self.compute(pixels)
