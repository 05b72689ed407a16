"""Photographs through a base, in Ray actors, into shards: what extract and label share.

Ray Data feeds shards to a pool of actors, replaces actors that die and gives their shards to
others.
"""

from __future__ import annotations

import inspect
import itertools
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerray import stores
from flowerray.bases.prepared import PreparedBase
from flowerray.outputs.manifest import Shard, rows_of
from flowerray.outputs.record import Output
from flowerray.pipeline import connection, shared_disk, tasks
from flowerray.pipeline.actor import Job, ShardActor, Work
from flowerray.pipeline.attempts import forgive
from flowerray.pipeline.metrics import RunMetrics
from flowerray.pipeline.plan import Plan, planned
from flowerray.progress import Progress
from flowerray.settings import InferenceSettings
from flowerray.stores import is_remote, local_path


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

    @property
    def recorded(self) -> dict[str, Any]:
        """What the record of an output keeps of it."""
        took = {"seconds": self.seconds, "startup_seconds": self.startup_seconds}
        return {"photographs": self.computed, **took, "actors": self.actors}


def run(
    output: Output, work: Work, base: PreparedBase, settings: InferenceSettings, what: str
) -> tuple[Timing, Counter[str]]:
    """Do every shard of `output` that is to do; without any, not even Ray is started. Returns also
    how many photographs of these shards are rejected, by reason.

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
        with connection.connection(settings.address):
            _check_disks(output, to_do)
            forgive(output.folder)
            plan = planned(settings)
            actors = min(plan.actors, len(to_do))
            metrics = RunMetrics(what, str(output.folder), output.manifest.rows, progress.done)
            job = Job(what, output, work, plan, settings.limits, stores.in_use())
            # Unless --actors says how many, nodes that join get some too: Ray Data starts one more
            # when all are busy and the cluster has room for it.
            reports = _reports(job, base, to_do, actors, grows=settings.actors is None)
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
        rows = rows_of(output.folder, output.manifest, shard)
        uris += rows["uri"].slice(0, 1).to_pylist()  # none where all were retired
    local = [local_path(uri) for uri in uris if not is_remote(uri)]
    shared_disk.check(Path(output.folder.uri) if output.folder.is_local else None, local)


def _reports(
    job: Job, base: PreparedBase, to_do: list[Shard], actors: int, grows: bool
) -> Generator[dict[str, Any]]:
    """What the actors say of each shard as soon as it is committed."""
    import ray

    # A task is a few shards, so that reading runs on across their borders.
    shards_a_task = max(1, min(8, len(to_do) // (8 * actors)))
    parts = [to_do[i : i + shards_a_task] for i in range(0, len(to_do), shards_a_task)]
    group = job.plan.groups[-1]
    items = [
        {"first_rows": [s.first_row for s in task], "rows": [s.rows for s in task]}
        for task in parts
    ]
    tasks.say_if_full(job.what, group.cpus, group.gpus)
    most = len(parts) if grows else actors
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
        fn_constructor_args=(job, ray.put(base)),
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


# An actor that dies begins anew, on another node perhaps. One that has done so this often, with no
# photograph to blame, would do so for ever.
MOST_RESTARTS = 20
