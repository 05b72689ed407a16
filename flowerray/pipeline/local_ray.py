"""A Ray of this machine's own, for one command: its directories, its token, its environment."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowerray.errors import FlowerrayError

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


@contextmanager
def environment_for_ray() -> Iterator[None]:
    """Our defaults of what Ray reads, for the length of the block."""
    ours = {name: value for name, value in RAY_DEFAULTS.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def token_of_its_own() -> Iterator[None]:
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
def directory_for_ray() -> Iterator[str | None]:
    """Where a local Ray keeps its sockets and logs: None for where it would by itself; where it
    can't, a private one, for the length of the block.

    Raises:
        FlowerrayError: there is none that can be written to.
    """
    usual = usual_directory()
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


def usual_directory() -> str:
    """Where Ray itself would go."""
    try:
        base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    except FileNotFoundError:  # every directory for such files is read-only, or full
        base = "/tmp"
    return f"{base}/ray"


def directory_for_objects(directory: str | None) -> str | None:
    """Where a local Ray keeps its objects: None for where it would by itself, which it takes for
    granted that Linux has; else where its sockets are. It finds by itself that there is little
    room."""
    shared = "/dev/shm"
    if sys.platform != "linux" or os.access(shared, os.R_OK | os.W_OK | os.X_OK):
        return None
    return directory or os.path.dirname(usual_directory())


def _takes_sockets(directory: str) -> bool:
    """Whether Ray could work in `directory`, there or not: its own sockets' names are long."""
    above = directory if os.path.lexists(directory) else os.path.dirname(directory)
    short = len(os.fsencode(os.path.realpath(directory))) <= RAY_DIRECTORY_BYTES
    return short and os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)


@contextmanager
def without_core_log() -> Iterator[None]:
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
