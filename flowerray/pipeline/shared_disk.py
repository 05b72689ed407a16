"""Whether every node sees the output and the photographs: told before a job starts, not after."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flowerray.errors import FlowerrayError
from flowerray.outputs.lease import SCRATCH
from flowerray.pipeline import tasks
from flowerray.stores.folder import whole_file

SECONDS_TO_APPEAR = 2.0  # of a new file, on a file system that a node caches


def check(directory: Path | None, photographs: Sequence[str | bytes]) -> None:
    """Look from every node that can compute, unless the driver's is the only one: it must see a
    file that the driver, who holds the lease, writes into `directory` and write one that the driver
    sees, unless the output is no directory; and see the local `photographs`, a few of which are
    enough. Those that the driver doesn't see are left out.

    Raises:
        FlowerrayError: some node doesn't, or the driver can't write there.
    """
    import ray

    elsewhere = {node.id for node in tasks.nodes()} - {ray.get_runtime_context().get_node_id()}
    there = [photograph for photograph in photographs if os.path.exists(photograph)]
    if not elsewhere or not (directory or there):
        return
    token = directory / f"{SCRATCH}/seen-{uuid.uuid4().hex[:12]}" if directory else None
    if token:
        with whole_file(token):
            pass
    try:
        found = tasks.on_each_node(lambda: _seen_here(token, there))
        refused = {}
        for node, (answer, reason) in found.items():
            if answer:
                reason = reason or ("" if _appears(answer) else f"writes to another {directory}")
                with suppress(OSError):
                    answer.unlink()
            if reason:
                refused[node.address] = reason
    finally:
        if token:
            token.unlink(missing_ok=True)
    if refused:
        told = "; ".join(f"{address} {reason}" for address, reason in sorted(refused.items()))
        raise FlowerrayError(
            f"the nodes don't share a disk: {told}. Mount the same file system on every node, or "
            "use an object store (s3://...)"
        )


def check_here(directory: Path) -> None:
    """As `check`, of a node that joined later, by the record that is in each output.

    Raises:
        FlowerrayError: this node doesn't see `directory`.
    """
    if not _appears(directory / "run.json"):
        raise FlowerrayError(
            f"{socket.gethostname()} doesn't see {directory}: mount the same file system on every "
            "node, or use an object store (s3://...)"
        )


def _seen_here(token: Path | None, photographs: Sequence[str | bytes]) -> tuple[Path | None, str]:
    """On a node: the file written in answer to `token`, and what is wrong, if anything."""
    answer = token.with_name(f"{token.name}-{uuid.uuid4().hex[:12]}") if token else None
    if token and answer:
        if not _appears(token):
            return answer, f"doesn't see {token.parent.parent}"
        try:
            answer.touch()
        except OSError as error:
            return answer, f"can't write to {token.parent.parent} ({error.strerror})"
    for photograph in photographs:
        if not _appears(photograph):
            return answer, f"doesn't see {os.fsdecode(photograph)}"
    return answer, ""


def _appears(path: Path | str | bytes) -> bool:
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not os.path.exists(path) and time.monotonic() < deadline:
        with suppress(OSError):  # opening the directory has a network file system look anew
            os.scandir(os.path.dirname(path)).close()
        time.sleep(0.05)
    return os.path.exists(path)
