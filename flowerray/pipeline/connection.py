"""The connection to a Ray: the cluster's, or one that is started for this command."""

from __future__ import annotations

import logging
import os
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path

from flowerray.bases import hardware
from flowerray.errors import GO_ON, FlowerrayError
from flowerray.pipeline.failures import errors_of_ours
from flowerray.pipeline.local_ray import (
    OBJECT_STORE_BYTES,
    directory_for_objects,
    directory_for_ray,
    environment_for_ray,
    token_of_its_own,
    usual_directory,
    without_core_log,
)
from flowerray.progress import say

HEAD_CHECK_SECONDS = 5
HEAD_LOST_SECONDS = 40  # a head with external storage may come back; Ray itself waits 60


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
        stack.enter_context(environment_for_ray())
        nested = "ray" in sys.modules and sys.modules["ray"].is_initialized()
        if not nested:
            say(f"connecting to Ray at {address}" if address else "starting Ray on this machine")
        if not nested and not address:
            stack.enter_context(token_of_its_own())  # before Ray is imported
        import ray
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray Data tells its plan on each run
        if not nested:
            stack.enter_context(without_core_log())
        stack.enter_context(redirect_stdout(sys.stderr))  # where Ray tells of retries
        stack.enter_context(errors_of_ours())
        if not nested:
            directory = None if address else stack.enter_context(directory_for_ray())
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
                    _plasma_directory=directory_for_objects(directory),
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
            f"({directory or usual_directory()}) and, within half a minute, some CPU: try again "
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
