"""Ray tasks: what each begins with, and calls on one node or on each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flowerray import stores
from flowerray.bases import hardware
from flowerray.errors import FlowerrayError
from flowerray.progress import say

FULL_SECONDS = 3  # a node tells late of what a job has given back
Result = TypeVar("Result")


@dataclass(frozen=True)
class Node:
    """A live node of the connected cluster: its address and what Ray may hand out of it."""

    id: str
    address: str
    cpus: int
    gpus: int
    memory_bytes: int


def nodes() -> list[Node]:
    """The live nodes that can compute.

    Raises:
        FlowerrayError: there is none.
    """
    import ray

    found = []
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        if has.get("CPU", 0) >= 1:
            sizes = int(has["CPU"]), int(has.get("GPU", 0)), int(has.get("memory", 0))
            found.append(Node(node["NodeID"], node["NodeManagerAddress"], *sizes))
    if not found:
        raise FlowerrayError("the Ray cluster has no CPUs: add a node, or `ray start --num-cpus N`")
    return found


def on_each_node(fn: Callable[[], Result]) -> dict[Node, Result]:
    """What `fn` returns on every node that can compute."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = nodes()
    run = ray.remote(fn)
    pending = [
        run.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote()
        for node in asked
    ]
    return dict(zip(asked, ray.get(pending), strict=True))


def machines() -> list[hardware.Hardware]:
    """What would compute: this machine, or where a cluster is connected, its nodes."""
    connected = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    return list(on_each_node(hardware.here).values()) if connected else [hardware.here()]


def say_if_full(what: str, cpus: float, gpus: float = 0) -> None:
    """Tell on stderr if `what`, about to ask Ray for these, has to wait until others end."""
    import ray

    deadline = time.monotonic() + FULL_SECONDS
    while (free := ray.available_resources()).get("CPU", 0) < cpus or free.get("GPU", 0) < gpus:
        if time.monotonic() > deadline:
            say(
                f"{what}: waiting for room on the cluster: needs {cpus:g} CPU, {gpus:g} GPU, of "
                f"which {free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free; "
                "`ray status` tells more"
            )
            return
        time.sleep(0.1)


def run_once(fn: Callable[..., Result], *arguments: Any) -> Result:
    """`fn` of `arguments` as one Ray task, with up to four CPUs of one node. It reaches object
    stores as this process does."""
    import ray

    cpus = trainer_resources()["num_cpus"]
    say_if_full(fn.__name__.strip("_"), cpus)
    task = ray.remote(_set_up_and_run).options(num_cpus=cpus, name=fn.__name__)
    return ray.get(task.remote(stores.in_use(), fn, *arguments))


def _set_up_and_run(access: stores.Access, fn: Callable[..., Result], *arguments: Any) -> Result:
    set_up_worker(access)
    return fn(*arguments)


def set_up_worker(access: stores.Access) -> None:
    """What a task or an actor does first: reach stores as its job does, see no GPU that isn't its
    own, and start processes that import nothing from the directory they start in."""
    stores.use(access)
    os.environ["PYTHONSAFEPATH"] = "1"
    if not has_gpu():
        hardware.hide_gpus()


def has_gpu() -> bool:
    """Whether the task or actor that asks has a GPU."""
    import ray

    return bool(ray.get_runtime_context().get_assigned_resources().get("GPU", 0))


def task_cpus() -> int:
    """The CPUs that Ray gave the task this runs in."""
    import ray

    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def trainer_resources() -> dict[str, float]:
    """One GPU if the cluster has any, else up to four CPUs of one node."""
    there = nodes()
    if any(node.gpus for node in there):
        return {"num_cpus": 1, "num_gpus": 1}
    return {"num_cpus": min(4, max(node.cpus for node in there)), "num_gpus": 0}
