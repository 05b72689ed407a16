"""Connecting to Ray, and planning what each actor gets of it."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass

from flowerray.errors import FlowerrayError
from flowerray.progress import say
from flowerray.settings import InferenceSettings

DECODE_THREADS_A_GPU = 8
HEAD_CHECK_SECONDS = 5
HEAD_LOST_SECONDS = 40  # a head with external storage may come back; Ray itself waits 60
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
def reached(address: str | None) -> Iterator[None]:
    """A connection where a cluster is asked for, so that a job learns at once that it isn't there;
    nothing where a local Ray will do, which `connection` starts when it is needed."""
    with connection(address) if address or os.environ.get("RAY_ADDRESS") else nullcontext():
        yield


@contextmanager
def connection(address: str | None) -> Iterator[None]:
    """Ray, for the length of the block: the cluster at `address` or of the Ray job this runs in,
    else one local node that starts and stops with the block. A nested block uses the outer's.

    Raises:
        FlowerrayError: the cluster can't be reached, or was lost.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        _authenticate_local()
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray Data tells its plan on each run
    with ExitStack() as stack:
        nested = ray.is_initialized()
        if not nested:
            stack.enter_context(_without_core_log())
        stack.enter_context(redirect_stdout(sys.stderr))  # where Ray tells of retries
        stack.enter_context(_errors_of_ours())
        if not nested:
            _connect(address)
            stack.callback(ray.shutdown)
            if address:
                stack.enter_context(_watched_head(ray.get_runtime_context().gcs_address))
        yield


def _connect(address: str | None) -> None:
    import ray

    try:
        if address:
            _check_answers(address)
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


def _authenticate_local() -> None:
    """A token for the local Ray alone. Ray would make one by itself, but keep it in the user's
    ~/.ray, where it changes how clusters that they start later let jobs in. Ray reads these when
    it is imported, so afterwards its own way stays."""
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _check_answers(address: str) -> None:
    """ray.init waits many minutes for a head that isn't there; a connection tells in seconds."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _watched_head(address: str) -> Iterator[None]:
    """While the block runs, notice that the cluster's head is gone, and end with a line that says
    so. Ray's own core would end this process a little later (after 60 s), from C++, without one."""
    ended = threading.Event()

    def watch() -> None:
        last_answer = time.monotonic()
        while not ended.wait(HEAD_CHECK_SECONDS):
            try:
                _check_answers(address)
                last_answer = time.monotonic()
            except OSError:
                if time.monotonic() - last_answer > HEAD_LOST_SECONDS and not ended.is_set():
                    say(
                        f"flowerray: the Ray head at {address} was lost; what is committed stays: "
                        "start the cluster, then run the same command again to go on"
                    )
                    os._exit(1)

    threading.Thread(target=watch, name="head-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _errors_of_ours() -> Iterator[None]:
    """Ray wraps what an actor or task raised; a FlowerrayError comes out as it was."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            # Ray's wrapper is an instance of the wrapped error's class too, with its traceback.
            if isinstance(cause, FlowerrayError) and not isinstance(cause, RayError):
                message = str(cause).partition("\n")[0]  # Ray Data adds lines of advice
                raise type(cause)(message) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise FlowerrayError(
            f"Ray failed: {_last_line(error)}; what is committed stays, "
            "run the same command again to go on"
        ) from error


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


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


def available_cpus() -> int:
    """CPUs this process may use: fewer than the machine has under taskset or a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan(settings: InferenceSettings) -> Plan:
    """Actors for the connected cluster, so that all of them fit it at once.

    Raises:
        FlowerrayError: the cluster has no CPUs.
    """
    import ray

    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    if cpus < 1:
        raise FlowerrayError("the Ray cluster has no CPUs: add a node, or `ray start --num-cpus N`")
    if settings.device == "gpu" or (settings.device == "auto" and gpus):
        actors = settings.actors or max(1, gpus)
        # One CPU reserved, so that it fits beside anything; decoding takes what threads get.
        return Plan(actors, 1, 1, DECODE_THREADS_A_GPU, settings.batch_size or 128)
    actors = settings.actors or max(1, cpus // 4)
    share = cpus / actors
    # More actors than CPUs get a fraction of one each: waiting for whole ones would hang for ever.
    threads = max(1, min(4, int(share)))
    reserved = threads if share >= 1 else math.floor(share * 100) / 100
    return Plan(actors, reserved, 0, threads, settings.batch_size or 32)


def trainer_resources() -> dict[str, float]:
    """One GPU if the cluster has any, else up to four CPUs of one node."""
    import ray

    total = ray.cluster_resources()
    if total.get("GPU", 0) >= 1:
        return {"num_cpus": 1, "num_gpus": 1}
    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    return {"num_cpus": max(1, min(4, int(largest))), "num_gpus": 0}
