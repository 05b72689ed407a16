"""Photographs through a base, in Ray actors, into shards: what extract and label share.

Ray Data feeds shards to a pool of actors, replaces actors that die and gives their shards to
others. In an actor, threads read and decode ahead while the base computes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from flowerray import catalog, cluster, photographs, shards
from flowerray.bases import BaseSpec
from flowerray.catalog import Shard
from flowerray.cluster import Plan
from flowerray.photographs import Limits, Rejected
from flowerray.progress import Progress
from flowerray.settings import InferenceSettings
from flowerray.shards import Output
from flowerray.weights import Weights

Outcome = np.ndarray | Rejected  # of one photograph


class Work(Protocol):
    """What a job does with pixels; it is sent to every actor."""

    spec: BaseSpec

    def open(self, weights: list[np.ndarray], threads: int) -> Callable[[np.ndarray], np.ndarray]:
        """Load the model; the call takes uint8 pixels (n, size, size, 3), one result a row."""

    def table(self, rows: pa.Table, outcomes: list[Outcome]) -> pa.Table:
        """The shard of manifest `rows`: each one's result, or why there is none."""


@dataclass(frozen=True)
class Timing:
    """Seconds until the first actor was ready and of the work after that, and the actors."""

    startup_seconds: float
    seconds: float
    actors: int


def run(
    output: Output, work: Work, weights: Weights, settings: InferenceSettings, what: str
) -> Timing:
    """Do every shard of `output` that is missing; without any, not even Ray is started.

    Raises:
        FlowerrayError: the cluster can't be reached, an actor could not load the model or write
            its shards.
    """
    missing = output.missing()
    todo = sum(shard.rows for shard in missing)
    progress = Progress(what, output.manifest.rows, output.manifest.rows - todo)
    actors = 0
    if missing:
        with cluster.connection(settings.address):
            plan = cluster.plan(settings)
            actors = min(plan.actors, len(missing))
            for report in _reports(output, work, weights, plan, actors, settings, missing):
                progress.ready(time.time() - report["actor_ready"])
                progress.add(report["photographs"], report["rejected"])
    output.folder.clear_tmp()
    return Timing(*progress.finish(), actors)


def _reports(
    output: Output,
    work: Work,
    weights: Weights,
    plan: Plan,
    actors: int,
    settings: InferenceSettings,
    missing: list[Shard],
) -> Iterator[dict[str, Any]]:
    """What the actors say of each shard as soon as it is committed."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # report each shard when it is done, not a task's all at once
    # A task is a few shards, so that reading runs on across their borders.
    shards_a_task = max(1, min(8, len(missing) // (8 * actors)))
    tasks = [missing[i : i + shards_a_task] for i in range(0, len(missing), shards_a_task)]
    limits = Limits(int(settings.max_megabytes * 1e6), int(settings.max_megapixels * 1e6))
    reports = ray.data.from_arrow([_as_table(task) for task in tasks]).map_batches(
        ShardActor,
        batch_size=shards_a_task,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=plan.cpus,
        num_gpus=plan.gpus,
        fn_constructor_args=(output, work, ray.put(weights.arrays), plan, limits),
    )
    yield from reports.iter_rows()


def _as_table(task: list[Shard]) -> pa.Table:
    return pa.table({"first_row": [s.first_row for s in task], "rows": [s.rows for s in task]})


class ShardActor:
    """One Ray actor: holds a base, and turns shards' photographs into committed shards."""

    def __init__(
        self, output: Output, work: Work, weights: Any, plan: Plan, limits: Limits
    ) -> None:
        import ray

        self.output, self.work, self.limits = output, work, limits
        self.batch_size = plan.batch_size
        self.ahead = 2 * plan.batch_size + plan.threads
        self.threads = ThreadPoolExecutor(plan.threads, thread_name_prefix="decode")
        self.compute = work.open(ray.get(weights), plan.threads)
        self.metadata = output.metadata()
        self.ready = time.time()

    def __call__(self, task: dict[str, np.ndarray]) -> Iterator[dict[str, list[Any]]]:
        asked = [
            Shard(int(f), int(r)) for f, r in zip(task["first_row"], task["rows"], strict=True)
        ]
        there = self.output.folder.names("shards")
        todo = [shard for shard in asked if shard.name not in there]  # a retried task may have some
        rows = {shard: catalog.read_shard(self.output.folder, shard) for shard in todo}
        decoded = self._decoded_ahead(rows.values())
        for shard in asked:
            if shard in rows:
                outcomes = self._computed(islice(decoded, shard.rows))
                table = self.work.table(rows[shard], outcomes)
                shards.write_shard(
                    self.output.folder,
                    shard,
                    table.replace_schema_metadata(
                        {**(table.schema.metadata or {}), **self.metadata}
                    ),
                )
                rejected = sum(isinstance(outcome, Rejected) for outcome in outcomes)
            else:
                rejected = 0
            yield {
                "photographs": [shard.rows],
                "rejected": [rejected],
                "actor_ready": [self.ready],
            }

    def _decoded_ahead(self, tables: Any) -> Iterator[Outcome]:
        """Every row's pixels or rejection, in order, with a few batches always in the making."""
        window: deque[Future[Outcome]] = deque()
        for table in tables:
            for uri, size in zip(table["uri"].to_pylist(), table["size"].to_pylist(), strict=True):
                window.append(self.threads.submit(self._decoded, uri, size))
                if len(window) > self.ahead:
                    yield window.popleft().result()
        while window:
            yield window.popleft().result()

    def _decoded(self, uri: str, size: int | None) -> Outcome:
        spec = self.work.spec
        try:
            data = photographs.read(uri, size, self.limits)
            return photographs.decode(data, spec.input_size, spec.resize, self.limits)
        except Rejected as rejected:
            return rejected

    def _computed(self, decoded: Iterator[Outcome]) -> list[Outcome]:
        """Each photograph's result in place of its pixels, computed in full batches."""
        outcomes = []
        waiting: list[int] = []
        for outcome in decoded:
            outcomes.append(outcome)
            if not isinstance(outcome, Rejected):
                waiting.append(len(outcomes) - 1)
            if len(waiting) == self.batch_size:
                self._compute(outcomes, waiting)
        if waiting:
            self._compute(outcomes, waiting)
        return outcomes

    def _compute(self, outcomes: list[Outcome], waiting: list[int]) -> None:
        results = self.compute(np.stack([outcomes[i] for i in waiting]))  # type: ignore[misc]
        for i, result in zip(waiting, results, strict=True):
            outcomes[i] = result
        waiting.clear()
