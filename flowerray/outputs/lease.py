"""One writer an output: who writes there holds `OUT/.flowerray/lease.json` until the job ends.

All that passes lies beside it in `OUT/.flowerray`: files being written, a training's checkpoint,
marks of tries. The lease is also the mark that this directory is ours: where a job was cut short
it stays, without an owner, as long as anything else is there.

An owner changes its lease every few seconds. One that has died on this machine is known by its
process; of another machine's, who waits sees whether the lease changes, by its own clock. An owner
that was taken for dead, because it slept say, finds another in its place and writes nothing more.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from flowerray.errors import FlowerrayError
from flowerray.progress import say
from flowerray.stores import store_at
from flowerray.stores.folder import Folder, refused, unreadable

SCRATCH = ".flowerray"
FILE = "lease.json"
LEASE = f"{SCRATCH}/{FILE}"
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a beat: twelve of them, since one may wait for a busy store
LOOK_SECONDS = 0.5
TRIES = 20  # to make a lease where there is none: more fail where another's comes and goes

_held: set[str] = set()  # tokens of this process


@dataclass(frozen=True)
class HeldFolder(Folder):
    """A folder that its lease's owner and its actors write to; they fail when it is another's."""

    token: str = field(default="", repr=False)

    @property
    def _pending(self) -> str | None:
        return self.file(SCRATCH)

    def _check(self) -> None:
        content = _content(self)
        if content is None or _parsed(content).token != self.token:
            now = f": {_parsed(content)} writes there now" if content else ""
            raise FlowerrayError(
                f"{self} was taken from this job, which was taken for dead{now}; it has written "
                "nothing since"
            )


@contextmanager
def held(folder: Folder, kind: str) -> Iterator[HeldFolder]:
    """`folder`, for the length of the block nobody else's to write to; a block that ends well
    leaves none of its scratch. `kind` is what the job makes, see `check_ours`.

    Raises:
        FlowerrayError: another job writes there, or the storage refuses.
    """
    made = folder.is_local and not os.path.isdir(folder.uri)
    mine = _Owner.of_this_process(kind)
    content = _acquired(folder, mine)
    _held.add(mine.token)
    heart = _Heart(folder, content)
    heart.start()
    well = False
    try:
        yield HeldFolder(folder.uri, mine.token)
        well = True
    finally:
        heart.end()
        try:
            with suppress(OSError, FlowerrayError):  # then it ends as a dead owner's does
                _release(folder, heart.content, well)
        finally:
            _held.discard(mine.token)
        if made:
            with suppress(OSError):  # not empty
                os.rmdir(folder.uri)


def check_ours(folder: Folder, kind: str, recorded: bool) -> None:
    """Refuse what a job could do harm to: a folder that holds something, of which neither a record
    nor the mark says that flowerray was at making a `kind` of output there.

    Raises:
        FlowerrayError: it is so.
    """
    if folder.is_local and os.path.exists(folder.uri) and not os.path.isdir(folder.uri):
        raise FlowerrayError(f"{folder} is a file: choose another --out")
    there = folder.names(".")
    scratch = folder.names(SCRATCH) if SCRATCH in there else set()
    if scratch and FILE not in scratch:
        raise FlowerrayError(
            f"{folder.file(SCRATCH)} holds something else ({min(scratch)}): rename it, or choose "
            "another --out"
        )
    others = there - {SCRATCH}
    if others and not recorded and not scratch:
        raise FlowerrayError(
            f"{folder} holds something else ({min(others)}): choose an empty or new directory"
        )
    content = _content(folder) if scratch and not recorded else None
    begun = _parsed(content).kind if content else kind
    if begun not in (kind, ""):
        raise FlowerrayError(f"{folder} holds {begun} in the making, not {kind}: choose another")


@dataclass(frozen=True)
class _Owner:
    """What a lease says: its owner, none where `token` is empty, and how often it has beaten."""

    kind: str = ""
    token: str = ""
    host: str = ""
    pid: int = 0
    machine: str = ""  # where pid and started mean something; empty is unknown
    started: str = ""
    beat: int = 0

    @classmethod
    def of_this_process(cls, kind: str) -> _Owner:
        pid = os.getpid()
        token, host = uuid.uuid4().hex, socket.gethostname()
        return cls(kind, token, host, pid, _machine(), _started(pid) or "")

    def __str__(self) -> str:
        return f"{self.host or 'another host'} (pid {self.pid})"

    @property
    def is_here(self) -> bool:
        """Whether this process can tell if the owner lives."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def lives(self) -> bool:
        """Whether the owner, `is_here`, does."""
        if self.pid == os.getpid() and self.token not in _held:
            return False
        return _started(self.pid) == self.started

    def written(self) -> bytes:
        about = "who writes to this output; all beside this file passes with the job"
        return json.dumps({"flowerray": about, **asdict(self)}).encode()


def _parsed(content: bytes) -> _Owner:
    """The owner that a lease names; an unknown one where it can't be read."""
    try:
        found = json.loads(content)
        return _Owner(**{name: found[name] for name in _Owner.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return _Owner(token="unknown")


def _content(folder: Folder) -> bytes | None:
    """The lease in `folder`, None where there is none."""
    try:
        return folder.read(LEASE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(folder.file(LEASE), error) from None


def _swap(folder: Folder, expected: bytes | None, data: bytes | None) -> bool:
    uri = folder.file(LEASE)
    return store_at(uri).swap(uri, expected, data)


def _acquired(folder: Folder, mine: _Owner) -> bytes:
    """Make the lease of `folder` `mine`, when a dead owner's has ended; returns what it holds."""
    content, waited_for, until, failed = mine.written(), None, 0.0, 0
    while True:
        there = _content(folder)
        other = _parsed(there) if there is not None else _Owner()
        free = not other.token or (other.is_here and not other.lives)
        if not free and not other.is_here:
            if there == waited_for:
                free = time.monotonic() > until
            elif waited_for is None:
                waited_for, until = there, time.monotonic() + STALE_SECONDS
                say(
                    f"{folder} is {other}'s to write to: looking for up to {STALE_SECONDS:.0f} s "
                    "whether that job lives"
                )
            else:
                raise _taken(folder, other)
        elif not free:
            raise _taken(folder, other)
        if free:
            try:
                if _swap(folder, there, content):
                    return content
            except OSError as error:
                raise refused(folder.file(LEASE), error) from None
            failed += 1
            if failed == TRIES:
                raise FlowerrayError(f"can't make {folder.file(LEASE)}: choose another --out")
        time.sleep(LOOK_SECONDS if not free else LOOK_SECONDS / 10)


def _taken(folder: Folder, other: _Owner) -> FlowerrayError:
    return FlowerrayError(
        f"{other} is writing to {folder}: wait until that job has ended, or stop it, or choose "
        "another --out"
    )


class _Heart(threading.Thread):
    """Changes the lease every few seconds, while it is its owner's."""

    def __init__(self, folder: Folder, content: bytes) -> None:
        super().__init__(name="lease", daemon=True)
        self.folder, self.content = folder, content
        self._owner, self._ended = _parsed(content), threading.Event()

    def run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError, FlowerrayError):  # the next beat may get through
                there = _content(self.folder)
                if there is None or _parsed(there).token != self._owner.token:
                    return
                self.content = there  # perhaps of a beat whose answer was lost
                beat = replace(self._owner, beat=_parsed(there).beat + 1).written()
                if _swap(self.folder, there, beat):
                    self.content = beat

    def end(self) -> None:
        self._ended.set()
        self.join()


def _release(folder: Folder, content: bytes, well: bool) -> None:
    there = _content(folder)
    if there is None or _parsed(there).token != _parsed(content).token:
        return
    scratch = folder.file(SCRATCH)
    left = folder.names(SCRATCH) - {FILE}
    if well:
        for name in left:
            folder.remove(f"{SCRATCH}/{name}")
    if left and not well:
        _swap(folder, there, _Owner(kind=_parsed(content).kind).written())
    else:
        _swap(folder, there, None)
        store_at(scratch).delete_empty(scratch)


def _machine() -> str:
    """This boot of this machine, and the process ids that are counted here: two containers may both
    have a process 1."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid: int) -> str | None:
    """When process `pid` started, in ticks since boot; None where it doesn't run (any more)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # what is before may have any name in it
    return None if fields[0] in "ZX" else fields[19]
