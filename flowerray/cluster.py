"""Connecting to Ray, and planning what each actor gets of it."""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import secrets
import shutil
import socket
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flowerray import hardware, stores
from flowerray.errors import GO_ON, FlowerrayError
from flowerray.progress import say
from flowerray.settings import PlanSettings

DECODE_THREADS_A_GPU = 8  # where no GPU node has started yet
THREADS = 1  # of an actor on CPUs: without a barrier between threads none of them waits
MOST_THREADS = 4
CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 128
ACTOR_BYTES = 2 << 30  # what an actor may take; see docs/benchmarks.md
HEAD_CHECK_SECONDS = 5
HEAD_LOST_SECONDS = 40  # a head with external storage may come back; Ray itself waits 60
FULL_SECONDS = 3  # a node tells late of what a job has given back
RAY_DIRECTORY_BYTES = 39  # of the 107 that a socket's name may have; Ray adds up to 68
RAY_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # For busy CPUs alone Ray Data asks an autoscaling cluster for no nodes: it may only have some
    # with GPUs to give, which a job planned for CPUs would not use. A job on GPUs does ask.
    "RAY_DATA_DEFAULT_CLUSTER_SCALING_UP_CPU_UTIL_THRESHOLD": "1000",
}
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
OBJECT_STORE_BYTES = 512 << 20  # a local Ray carries weights and one row a shard, no pixels


Result = TypeVar("Result")


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
        return self.groups[0] if _has_gpu() else self.groups[-1]


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
    address = address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        stack.enter_context(_environment_for_ray())
        nested = "ray" in sys.modules and sys.modules["ray"].is_initialized()
        if not nested and not address:
            stack.enter_context(_token_of_its_own())  # before Ray is imported
        import ray
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray Data tells its plan on each run
        if not nested:
            stack.enter_context(_without_core_log())
        stack.enter_context(redirect_stdout(sys.stderr))  # where Ray tells of retries
        stack.enter_context(_errors_of_ours())
        if not nested:
            directory = None if address else stack.enter_context(_directory_for_ray())
            _connect(address, directory)
            stack.callback(ray.shutdown)
            if address:
                stack.enter_context(_watched_head(ray.get_runtime_context().gcs_address))
        yield


def _connect(address: str | None, directory: str | None) -> None:
    import ray

    try:
        if address:
            _check_answers(address)
        with _away_from_the_callers_directory():
            if address:
                ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
            else:
                ray.init(
                    "local",
                    num_cpus=hardware.available_cpus(),
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _temp_dir=directory,
                    _plasma_directory=_directory_for_objects(directory),
                )
    # Any: Ray tells of a start that takes too long, and of much else, by a bare Exception.
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        if address:
            raise FlowerrayError(
                f"can't reach the Ray cluster at {address}: {said}; "
                "`ray status` shows whether one runs; without --address a local one is started"
            ) from None
        raise FlowerrayError(
            f"can't start a local Ray: {said}; it needs some free memory, room in its directory "
            f"({directory or _usual_directory()}) and, within half a minute, some CPU: try again "
            "when the machine is less busy, or set RAY_TMPDIR to another directory"
        ) from None


@contextmanager
def _away_from_the_callers_directory() -> Iterator[None]:
    """While Ray connects: it has workers import first from the driver's directory and that of its
    script, where a numpy.py would be taken for numpy. Ours need flowerray alone from there."""
    root = str(Path(__file__).resolve().parents[1])
    installed = root in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # Not by its name: it may be deleted.
    before, path = os.open(".", os.O_RDONLY), sys.path
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    # Where flowerray is installed, workers find it by themselves: Python's own directory, which
    # their path begins with anyway, changes nothing.
    os.chdir(sysconfig.get_path("stdlib") if installed else root)
    sys.path = [entry for entry in path if entry != script]
    try:
        yield
    finally:
        sys.path = path
        os.fchdir(before)
        os.close(before)


@contextmanager
def _environment_for_ray() -> Iterator[None]:
    """Our defaults of what Ray reads, for the length of the block."""
    ours = {name: value for name, value in RAY_DEFAULTS.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _token_of_its_own() -> Iterator[None]:
    """A token for the local Ray of the block alone, unless the user says how Ray is to do it. Ray
    would make one by itself, but keep it in ~/.ray, where it changes how clusters that are started
    later let jobs in. Afterwards this process knows nothing of it: a Ray that the caller starts
    then would not have it."""
    if any(name in os.environ for name in TOKEN_VARIABLES):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        if "ray" in sys.modules:
            _have_ray_read_its_token_anew()
        yield
    finally:
        for name in TOKEN_VARIABLES:  # the mode is set by Ray
            os.environ.pop(name, None)
        _have_ray_read_its_token_anew()


def _have_ray_read_its_token_anew() -> None:
    """Ray's core keeps the mode and the token that it found first, and no public call changes that.
    The mode goes first: a thread of Ray that still ends would miss a token in that mode."""
    core: Any = importlib.import_module("ray._raylet")
    if hasattr(core, "AuthenticationTokenLoader"):
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _directory_for_ray() -> Iterator[str | None]:
    """Where a local Ray keeps its sockets and logs: None for where it would by itself; where it
    can't, a private one, for the length of the block.

    Raises:
        FlowerrayError: there is none that can be written to.
    """
    usual = _usual_directory()
    if _takes_sockets(usual):
        yield None
        return
    for base in (os.path.dirname(usual), "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~")):
        try:
            directory = tempfile.mkdtemp(prefix="ray-", dir=os.path.abspath(base))
        except OSError:
            continue
        try:
            if _takes_sockets(directory):
                yield directory
                return
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    raise FlowerrayError(
        f"Ray needs a directory of at most {RAY_DIRECTORY_BYTES} bytes of name that can be written "
        "to, and /tmp is none: set RAY_TMPDIR to one"
    )


def _usual_directory() -> str:
    """Where Ray itself would go."""
    try:
        base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    except FileNotFoundError:  # every directory for such files is read-only, or full
        base = "/tmp"
    return f"{base}/ray"


def _directory_for_objects(directory: str | None) -> str | None:
    """Where a local Ray keeps its objects: None for where it would by itself, which it takes for
    granted that Linux has; else where its sockets are. It finds by itself that there is little
    room."""
    shared = "/dev/shm"
    if sys.platform != "linux" or os.access(shared, os.R_OK | os.W_OK | os.X_OK):
        return None
    return directory or os.path.dirname(_usual_directory())


def _takes_sockets(directory: str) -> bool:
    """Whether Ray could work in `directory`, there or not: its own sockets' names are long."""
    above = directory if os.path.lexists(directory) else os.path.dirname(directory)
    short = len(os.fsencode(os.path.realpath(directory))) <= RAY_DIRECTORY_BYTES
    return short and os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)


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
                        f"start the cluster, then {GO_ON}"
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
        # Who keeps the exception would keep Ray Data's actors too, and their CPUs.
        traceback.clear_frames(error.__traceback__)
        cause: BaseException | None = error
        while cause is not None:
            # Ray's wrapper is an instance of the wrapped error's class too, with its traceback.
            if isinstance(cause, FlowerrayError) and not isinstance(cause, RayError):
                message = str(cause).partition("\n")[0]  # Ray Data adds lines of advice
                raise type(cause)(message) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        reason, mend = _reason(error), _mend(error)
        raise FlowerrayError(f"Ray failed: {reason}; what is committed stays{mend}") from error


def _reason(error: BaseException) -> str:
    """On one line: what was raised in an actor or a task, or else Ray's own last line."""
    cause = _raised(error)
    if cause is None:
        return str(error).strip().rpartition("\n")[2] or type(error).__name__
    said = re.split("Failed to apply UDF|To change retry", str(cause))[0]  # Ray Data's advice
    return f"{type(cause).__name__}: {' '.join(said.split())}"


def _raised(error: BaseException) -> BaseException | None:
    """What code of ours or a library's raised in an actor or a task; None where Ray lost it."""
    return getattr(error, "cause", None)


def _mend(error: BaseException) -> str:
    """What helps: to go on only where the same would not happen again."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.WorkerCrashedError,
        exceptions.ObjectLostError,
        exceptions.LocalRayletDiedError,
    )
    raised = _raised(error)
    if isinstance(error, exceptions.OutOfMemoryError) or isinstance(raised, MemoryError):
        return f": with fewer --actors, which need less memory, {GO_ON}"
    if isinstance(error, exceptions.OutOfDiskError):
        return f": make room on the disk of Ray's directory, then {GO_ON}"
    if isinstance(raised, OSError):
        return f": once that is mended, {GO_ON}"
    init_failed = isinstance(error, exceptions.RayActorError) and error.actor_init_failed
    if raised is None and isinstance(error, lost) and not init_failed:
        return f", {GO_ON}"
    return _log_of(error)


def _log_of(error: BaseException) -> str:
    """Where the process that raised `error` wrote, by what Ray says of it."""
    of = re.search(r"\bpid=(\d+), ip=([^,)\s]+)", str(error))
    if not of:
        return "; the logs of Ray's session (session_latest/logs in its directory) tell more"
    return (
        f"; the worker's log is session_latest/logs/worker-*-{of[1]}.err in Ray's directory "
        f"(/tmp/ray, or ray/ in TMPDIR) on {of[2]}"
    )


@contextmanager
def _without_core_log() -> Iterator[None]:
    """Keep Ray's C++ core off this process' stderr: it repeats there what is in its own log files
    (/tmp/ray/session_latest/logs), in the middle of our progress. Python's stderr stays."""
    try:
        is_core_log = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # a notebook's, or a test's
        is_core_log = False
    if not is_core_log:
        yield
        return
    python_stderr, real = sys.stderr, os.dup(2)
    sys.stderr = os.fdopen(os.dup(2), "w", 1, python_stderr.encoding, "backslashreplace")
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.close()
        os.dup2(real, 2)
        os.close(real)
        sys.stderr = python_stderr


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


def plan(settings: PlanSettings) -> Plan:
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
    if not _has_gpu():
        hardware.hide_gpus()


def _has_gpu() -> bool:
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
