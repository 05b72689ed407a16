"""Photographs through a base, in Ray actors, into shards: what extract and label share.

Ray Data feeds shards to a pool of actors, replaces actors that die and gives their shards to
others. In an actor, threads read and decode ahead while the base computes.
"""

from __future__ import annotations

import faulthandler
import inspect
import itertools
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray import catalog, cluster, photographs, shards, shared_disk, stores
from flowerray.attempts import TOGETHER, Attempts, forgive
from flowerray.bases import BaseSpec
from flowerray.catalog import Shard
from flowerray.cluster import Plan
from flowerray.errors import FlowerrayError
from flowerray.isolated import IsolatedReader
from flowerray.metrics import ActorMetrics, RunMetrics
from flowerray.photographs import Limits, Rejected
from flowerray.progress import Progress
from flowerray.settings import InferenceSettings
from flowerray.shards import Output
from flowerray.stores import Access, is_remote, local_path

Outcome = Any  # of one photograph: its pixels, what was computed of them, or why not (Rejected)


class Work(Protocol):
    """What a job does with pixels; it is sent to every actor."""

    spec: BaseSpec

    def open(self, model: list[np.ndarray], threads: int) -> Callable[[np.ndarray], Any]:
        """Load the model; the call takes uint8 pixels (n, size, size, 3), one result a row."""

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


@dataclass(frozen=True)
class Timing:
    """Photographs computed now; those of them in shards that an actor was computing when it was
    killed; seconds until the first actor was ready and of the work after that; the actors that it
    began with."""

    computed: int
    redone: int
    startup_seconds: float
    seconds: float
    actors: int


def run(
    output: Output, work: Work, model: list[np.ndarray], settings: InferenceSettings, what: str
) -> tuple[Timing, Counter[str]]:
    """Do every shard of `output` that is to do; without any, not even Ray is started. Returns also
    how many photographs of these shards are rejected, by reason.

    `model` is what the actors open their engine with, see ``flowerray.precision.with_model``.

    Raises:
        FlowerrayError: the cluster can't be reached, its nodes don't share the disk, an actor could
            not load the model or write its shards.
    """
    to_do = output.to_do()
    rows = sum(shard.rows for shard in to_do)
    progress = Progress(what, output.manifest.rows, max(0, output.manifest.rows - rows))
    actors, computed, redone = 0, 0, 0
    rejects: Counter[str] = Counter()
    if to_do:
        with cluster.connection(settings.address):
            _check_disks(output, to_do)
            forgive(output.folder)
            plan = cluster.plan(settings)
            actors = min(plan.actors, len(to_do))
            metrics = RunMetrics(what, str(output.folder), progress.total, progress.done)
            job = Job(what, output, work, plan, settings.limits, stores.in_use())
            # Unless --actors says how many, nodes that join get some too: Ray Data starts one more
            # when all are busy and the cluster has room for it.
            reports = _reports(job, model, to_do, actors, grows=settings.actors is None)
            # Closed, or an error would leave its actors, with their CPUs.
            with _ray_data_as_jobs_need_it(), closing(reports):
                for report in reports:
                    rejected = report["rejected"].split()
                    progress.ready(time.time() - report["actor_ready"])
                    progress.add(report["photographs"], len(rejected))
                    metrics.add(report["photographs"], rejected)
                    rejects.update(rejected)
                    computed += report["computed"]
                    redone += report["redone"]
    return Timing(computed, redone, *progress.finish(), actors), rejects


def _check_disks(output: Output, to_do: list[Shard]) -> None:
    """Raise before any actor starts where a node doesn't see what the job reads and writes."""
    uris = []
    for shard in (to_do[0], to_do[-1]):
        rows = catalog.read_shard(output.folder, output.manifest, shard)
        uris += rows["uri"].slice(0, 1).to_pylist()  # none where all were retired
    local = [local_path(uri) for uri in uris if not is_remote(uri)]
    shared_disk.check(Path(output.folder.uri) if output.folder.is_local else None, local)


def _reports(
    job: Job, model: list[np.ndarray], to_do: list[Shard], actors: int, grows: bool
) -> Generator[dict[str, Any]]:
    """What the actors say of each shard as soon as it is committed."""
    import ray

    # A task is a few shards, so that reading runs on across their borders.
    shards_a_task = max(1, min(8, len(to_do) // (8 * actors)))
    tasks = [to_do[i : i + shards_a_task] for i in range(0, len(to_do), shards_a_task)]
    group = job.plan.groups[-1]
    items = [
        {"first_rows": [s.first_row for s in task], "rows": [s.rows for s in task]}
        for task in tasks
    ]
    cluster.say_if_full(job.what, group.cpus, group.gpus)
    most = len(tasks) if grows else actors
    # Ray Data says that it will name what it takes; this it doesn't name yet.
    takes_more = "ray_remote_args" in inspect.signature(ray.data.Dataset.map_batches).parameters
    more: dict[str, Any] = {"max_restarts": MOST_RESTARTS} if takes_more else {}
    # One block a task. (from_arrow would first run a Ray task to look at them.)
    reports = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardActor,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=actors),
        num_cpus=group.cpus,
        num_gpus=group.gpus,
        ray_remote_args_fn=_resources_of_each(job.plan) if len(job.plan.groups) > 1 else None,
        fn_constructor_args=(job, ray.put(model)),
        **more,
    )
    reports.set_name(f"flowerray-{job.what}")  # in Ray's dashboard and its own metrics
    yield from reports.iter_rows()


@contextmanager
def _ray_data_as_jobs_need_it() -> Iterator[None]:
    """Settings of Ray Data's for the length of the block: the process may be a user's own."""
    import ray
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current()
    wanted = [
        (context, "enable_progress_bars", False),
        (context, "raise_original_map_exception", True),  # else only its text comes back
        # Report each shard when it is done, not a task's all at once.
        (context, "target_max_block_size", 1),
        # A shard may take hours, and so may waiting for room on the cluster.
        (context, "execution_no_progress_timeout_s", -1),
        # One at a time: Ray Data counts each actor as the last group's, whichever it comes to be.
        (context.autoscaling_config, "actor_pool_max_upscaling_delta", 1),
    ]
    known = [(of, name, value) for of, name, value in wanted if hasattr(of, name)]
    before = [(of, name, getattr(of, name)) for of, name, _ in known]
    for of, name, value in known:
        setattr(of, name, value)
    try:
        with warnings.catch_warnings():  # a user can do nothing about what Ray will drop one day
            warnings.simplefilter("ignore", RayDeprecationWarning)
            yield
    finally:
        for of, name, value in before:
            setattr(of, name, value)


def _resources_of_each(plan: Plan) -> Callable[[], dict[str, float]]:
    """What Ray Data asks for each actor that it starts, where some are on GPUs and some not."""
    import ray

    on_gpus, on_cpus = plan.groups
    started = itertools.count()

    def resources() -> dict[str, float]:
        number = next(started)
        group = on_gpus if number < on_gpus.actors else on_cpus
        if number >= plan.actors:  # in place of one that was lost, or on a node that joined
            group = on_gpus if ray.available_resources().get("GPU", 0) >= 1 else on_cpus
        return {"num_cpus": group.cpus, "num_gpus": group.gpus}

    return resources


REQUESTS_IN_FLIGHT = 32  # of an actor, to the stores of photographs and shards
# An actor that dies begins anew, on another node perhaps. One that has done so this often, with no
# photograph to blame, would do so for ever.
MOST_RESTARTS = 20
HANDOVER_SECONDS = 10  # to mark a shard in, before this process ends
AHEAD_BYTES = 256 << 20  # of files that an actor reads ahead, unless one alone is larger
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


class Fetched:
    """Photographs from stores, and how large they are: a table doesn't say so beforehand."""

    def __init__(self) -> None:
        self.bytes, self.photographs = 0, 0

    @property
    def mean(self) -> int:
        """Bytes of a photograph."""
        return self.bytes // max(1, self.photographs)

    def read(self, uri: str, size: int | None, limits: Limits) -> bytes:
        """See ``flowerray.photographs.read``."""
        data = photographs.read(uri, size, limits)
        self.bytes, self.photographs = self.bytes + len(data), self.photographs + 1
        return data


class ShardActor:
    """One Ray actor: holds a base, and turns shards' photographs into committed shards."""

    def __init__(self, job: Job, model: Any) -> None:
        # Of an error that a constructor raises Ray brings the text alone: the first task raises it.
        self.unusable: FlowerrayError | None = None
        try:
            self._load(job, model)
        except FlowerrayError as error:
            self.unusable = error

    def _load(self, job: Job, model: Any) -> None:
        import ray

        cluster.set_up_worker(job.access)
        if job.output.folder.is_local:
            shared_disk.check_here(Path(job.output.folder.uri))
        self.output, self.work, self.limits = job.output, job.work, job.limits
        self.attempts = Attempts(self.output.folder)
        self.attempts.begin(job.plan.actors)
        group = job.plan.group_of_this_actor()
        self.batch_size = group.batch_size
        self.ahead = 2 * group.batch_size + group.threads
        self.threads = ThreadPoolExecutor(group.threads, thread_name_prefix="decode")
        # Waiting for a store takes no CPU: far more threads than those that decode.
        self.storage = ThreadPoolExecutor(REQUESTS_IN_FLIGHT, thread_name_prefix="storage")
        self.fetched = Fetched()
        self.metrics = ActorMetrics(job.what)
        self.read_and_decode = self.metrics.timed(photographs.read_and_decode)
        self.decode = self.metrics.timed(photographs.decoded)
        self.isolated = self.metrics.timed(IsolatedReader())
        self.compute = self.work.open(ray.get(model), group.threads)
        self.attempts.ready()
        self.ready = time.time()

    def __call__(self, task: dict[str, np.ndarray]) -> Iterator[dict[str, list[Any]]]:
        if self.unusable is not None:
            raise self.unusable
        first_rows, rows = task["first_rows"][0], task["rows"][0]
        asked = [Shard(int(f), int(r)) for f, r in zip(first_rows, rows, strict=True)]
        marks = self.attempts.names()
        left = self.storage.map(lambda shard: self._left_of(shard, marks), asked)
        work = {s: todo for s, todo in zip(asked, left, strict=True) if todo is not None}
        decoded = self._decoded_ahead(work)
        for shard in asked:
            done, redone = 0, 0
            if shard in work:
                rows, kept = work[shard].rows, work[shard].kept
                computing = self._hinted(self.attempts.mark_computing, shard)
                outcomes = self._computed(islice(decoded, len(rows)))
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
        rows = catalog.read_shard(self.output.folder, self.output.manifest, shard)
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
            return self.storage.submit(call, *arguments)
        call(*arguments)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _decoded_ahead(self, work: dict[Shard, ShardWork]) -> Iterator[Outcome]:
        """Every row's pixels or rejection, in order, with a few batches always in the making."""
        spec, limits = self.work.spec, self.limits
        window: deque[tuple[Shard, Future[Outcome]]] = deque()
        sizes: deque[int] = deque()  # of those in the window, in bytes before they are decoded
        # Each shard is marked while the one before is read: the mark must be there before a
        # photograph that could take the process down is touched.
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
                if left.isolate:
                    while window:
                        yield self._ready(*window.popleft())
                    sizes.clear()
                    yield self.isolated(uri, size, spec, limits)
                    continue
                window.append((shard, self._submitted(uri, size)))
                sizes.append(self.fetched.mean if size is None else size)
                while len(window) > self.ahead or (len(window) > 1 and sum(sizes) > AHEAD_BYTES):
                    sizes.popleft()
                    yield self._ready(*window.popleft())
        while window:
            yield self._ready(*window.popleft())

    def _ready(self, shard: Shard, pending: Future[Outcome]) -> Outcome:
        """What came of the oldest photograph, one of `shard`. A decoder that doesn't come back
        takes this process with it: the next one reads the shard's photographs each in a process of
        its own."""
        if pending.done():
            return pending.result()
        seconds = self.limits.read_seconds + self.limits.decode_seconds
        with self._ended_after(seconds + HANDOVER_SECONDS):  # where it holds Python's lock, too
            try:
                return pending.result(seconds)
            except TimeoutError:
                self.attempts.mark_tried(shard, TOGETHER)
                os._exit(1)

    @contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """End this process where the block takes longer, whatever it is at."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=self.attempts.fault)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _submitted(self, uri: str, size: int | None) -> Future[Outcome]:
        spec, limits = self.work.spec, self.limits
        if not is_remote(uri):
            return self.threads.submit(self.read_and_decode, uri, size, spec, limits)
        data = self.storage.submit(self.fetched.read, uri, size, limits)
        return self.threads.submit(self.decode, data.result, spec, limits)

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
        with self.metrics.batch(len(waiting)), self._ended_after(BATCH_SECONDS):
            results = self.compute(np.stack([outcomes[i] for i in waiting]))
        for i, result in zip(waiting, results, strict=True):
            outcomes[i] = result
        waiting.clear()
