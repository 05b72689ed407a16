"""How many actors a job gets, of how many threads, on which nodes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from flowerray.errors import FlowerrayError
from flowerray.pipeline.tasks import Node, has_gpu, nodes
from flowerray.settings import PlanSettings

DECODE_THREADS_A_GPU = 8  # where no GPU node has started yet
THREADS = 1  # of an actor on CPUs: without a barrier between threads none of them waits
MOST_THREADS = 4
CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 128
ACTOR_BYTES = 2 << 30  # what an actor may take; see docs/benchmarks.md


@dataclass(frozen=True)
class Group:
    """Alike actors: each gets these resources of Ray, so many threads to decode with and, on CPUs,
    to compute with, and computes photographs `batch_size` at a time."""

    device: str
    actors: int
    cpus: float
    gpus: int
    threads: int
    batch_size: int


@dataclass(frozen=True)
class Plan:
    """What runs where: at most one group on GPUs and one on CPUs, in this order."""

    groups: tuple[Group, ...]

    @property
    def actors(self) -> int:
        """Actors of all groups."""
        return sum(group.actors for group in self.groups)

    def group_of_this_actor(self) -> Group:
        """The group of the actor that asks."""
        return self.groups[0] if has_gpu() else self.groups[-1]


def planned(settings: PlanSettings) -> Plan:
    """Actors for the connected cluster: one a GPU, and on nodes without GPUs as many as their CPUs
    and memory carry.

    What an actor reserves fits every node that has such a device, and more actors than there are
    CPUs get a fraction of one: waiting for room that never comes would hang for ever.

    Raises:
        FlowerrayError: the cluster has no CPUs, or a local Ray, which gets no more nodes, has no
            GPU where one is asked for.
    """
    there = nodes()
    grows = settings.address or os.environ.get("RAY_ADDRESS")
    if settings.device == "gpu" and not grows and not any(node.gpus for node in there):
        raise FlowerrayError(
            "--device gpu: Ray sees no GPU on this machine (`nvidia-smi` shows whether its driver "
            "does); --device auto takes what there is, --address a cluster that has some"
        )
    if settings.device == "cpu":
        groups = [_on_cpus(there, settings.actors, settings)]
    elif settings.device == "gpu":
        groups = [_on_gpus(there, settings.actors or 1, settings)]
    else:
        on_gpus = _on_gpus(there, 0, settings)
        plain = [node for node in there if not node.gpus] if on_gpus.actors else there
        rest = settings.actors and settings.actors - on_gpus.actors
        groups = [on_gpus, _on_cpus(plain, rest, settings)]
    return Plan(tuple(group for group in groups if group.actors))


def _on_gpus(there: list[Node], least: int, settings: PlanSettings) -> Group:
    """An actor for every GPU, or `least` of them on a cluster that is to scale up to that. All CPUs
    beside a GPU are its actor's, to decode with."""
    having = [node for node in there if node.gpus]
    gpus = sum(node.gpus for node in having)
    actors = min(gpus, settings.actors or gpus) if least <= gpus else least
    cpus = max(1, min((node.cpus // node.gpus for node in having), default=1))
    threads = settings.threads or (cpus if having else DECODE_THREADS_A_GPU)
    return Group("gpu", actors, cpus, 1, threads, settings.batch_size or GPU_BATCH_SIZE)


def _on_cpus(there: list[Node], actors: int | None, settings: PlanSettings) -> Group:
    """`actors`, or as many as fit, of as few threads as memory has room for."""
    smallest = min((node.cpus for node in there), default=1)
    threads = settings.threads
    if threads is None and actors:
        # Of every node's size at most: a node may go, and its actor must find room on another.
        sizes = range(min(MOST_THREADS, smallest), 0, -1)
        threads = next((t for t in sizes if _room(there, t) >= actors), 1)
    elif threads is None:
        threads = min((_threads_on(node) for node in there), default=1)
    reserved = min(threads, smallest)
    if actors is None:
        actors = sum(min(_room([node], reserved), _actors_in_memory(node)) for node in there)
    crowd = math.ceil(actors / max(_room(there, reserved), 1))
    share = reserved if crowd <= 1 else math.floor(100 * reserved / crowd) / 100
    return Group("cpu", actors, share, 0, threads, settings.batch_size or CPU_BATCH_SIZE)


def _room(there: list[Node], threads: int) -> int:
    """How many actors of so many whole CPUs fit the nodes."""
    return sum(node.cpus // threads for node in there)


def _threads_on(node: Node) -> int:
    """CPU threads for each actor of `node`: as few as its memory has room for."""
    for threads in (THREADS, 2, MOST_THREADS):
        if node.cpus // threads <= _actors_in_memory(node):
            break
    return min(threads, node.cpus)


def _actors_in_memory(node: Node) -> int:
    """How many actors the memory of `node` has room for: at least one."""
    return max(1, node.memory_bytes // ACTOR_BYTES)
