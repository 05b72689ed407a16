"""Connecting to Ray, and planning what each actor gets of it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from flowerray.errors import FlowerrayError
from flowerray.settings import InferenceSettings

OBJECT_STORE_BYTES = 512 << 20  # a local Ray carries weights and one row a shard, no pixels


@dataclass(frozen=True)
class Plan:
    """What runs where: `actors` of them, each with these resources of Ray and these threads."""

    actors: int
    cpus: float
    gpus: float
    threads: int
    batch_size: int


@contextmanager
def connection(address: str | None) -> Iterator[None]:
    """Ray, for the length of the block: the cluster at `address` or of the Ray job this runs in,
    else one local node that starts and stops with the block. A nested block uses the outer's.

    Raises:
        FlowerrayError: the cluster can't be reached, or was lost.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data
    from ray.exceptions import RayError, RayTaskError

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray Data tells its plan on each run
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            ray.init(
                "local",
                num_cpus=available_cpus(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise FlowerrayError(
            f"can't reach {where}: {str(error).partition(chr(10))[0]}; "
            "`ray status` shows whether one runs; without --address a local one is started"
        ) from None
    try:
        with _without_core_log() if not address else nullcontext():
            yield
    except RayTaskError as error:
        raise _cause(error) from None
    except RayError as error:
        raise FlowerrayError(
            f"the Ray cluster failed: {str(error).partition(chr(10))[0]}; "
            "what is committed stays, run the same command again to go on"
        ) from error
    finally:
        ray.shutdown()


@contextmanager
def _without_core_log() -> Iterator[None]:
    """Keep Ray's C++ core off this process' stderr: it repeats there what is in its own log files
    (/tmp/ray/session_latest/logs), in the middle of our progress. Python's stderr stays."""
    if sys.stderr.fileno() != 2:
        yield
        return
    python_stderr, real = sys.stderr, os.dup(2)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.close()
        os.dup2(real, 2)
        os.close(real)
        sys.stderr = python_stderr


def _cause(error: BaseException) -> BaseException:
    """The FlowerrayError behind what Ray wrapped it in, or else `error`."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FlowerrayError) and type(seen).__module__ == "flowerray.errors":
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


def available_cpus() -> int:
    """CPUs this process may use: fewer than the machine has under taskset or a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan(settings: InferenceSettings) -> Plan:
    """Actors for the connected cluster, so that all of them always fit its CPUs at once.

    Raises:
        FlowerrayError: the cluster has no CPUs.
    """
    import ray

    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    if cpus < 1:
        raise FlowerrayError("the Ray cluster has no CPUs: add a node, or `ray start --num-cpus N`")
    if gpus:
        actors = settings.actors or gpus
        shares = {"gpus": gpus / actors if actors > gpus else 1.0}
    else:
        actors = settings.actors or max(1, cpus // 4)
        shares = {"gpus": 0.0}
    # A fraction of a CPU is Ray's way to fit more actors than CPUs: waiting for a whole one
    # would hang for ever.
    share = min(cpus / actors, 4.0 if not settings.actors else cpus / actors)
    threads = max(1, int(share))
    reserved = float(threads) if share >= 1 else round(share - 0.005, 2)
    return Plan(
        actors, reserved, shares["gpus"], threads, settings.batch_size or (128 if gpus else 32)
    )


def trainer_resources() -> dict[str, float]:
    """One GPU if the cluster has any, else up to four CPUs of one node."""
    import ray

    total = ray.cluster_resources()
    if total.get("GPU", 0) >= 1:
        return {"num_cpus": 1, "num_gpus": 1}
    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    return {"num_cpus": max(1, min(4, int(largest))), "num_gpus": 0}
