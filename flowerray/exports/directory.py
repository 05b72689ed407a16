"""A directory that an export makes: whole or not there, and nothing else in it touched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowerray import stores
from flowerray.bases.spec import fingerprint_of
from flowerray.errors import FlowerrayError
from flowerray.outputs import lease
from flowerray.outputs.lease import SCRATCH, HeldFolder
from flowerray.outputs.record import Output
from flowerray.progress import say
from flowerray.settings import ExportSettings
from flowerray.stores import is_remote
from flowerray.stores.folder import Folder, refused

# In a directory that an export made: what of, all that it put there, and what is in the making.
MARK, LIST, STAGING = ".flowerray.json", ".flowerray.list", SCRATCH
KIND = "an export"


def _request(output: Output, settings: ExportSettings) -> dict[str, Any]:
    """What an exported directory was made of; any change to a label changes `state`."""
    state: list[Any] = []
    for page in stores.store_at(output.folder.uri).files(output.folder.file("shards")):
        for uri, size in page:
            # Stores know no time of change, only sizes.
            changed = os.stat(uri).st_mtime_ns if output.folder.is_local else None
            state.append((uri.rpartition("/")[2], size, changed))
    return {
        "labels": str(output.folder),
        "state": fingerprint_of(state),
        "format": settings.format,
        "copy": settings.copy,
        "accepted_only": settings.accepted_only,
        "min_confidence": settings.min_confidence,
    }


def build(
    place: str,
    output: Output,
    settings: ExportSettings,
    fill: Callable[[Path], tuple[int, int]],
) -> tuple[int, int]:
    """Make the directory `place`: `fill` does so in its scratch, whose entries then move up.

    A mark in it says what it was made of and whether it is done, a list what was put there. One
    that is done is left as it is, one that is not is made anew, and one of another request is
    refused. What the list lacks is never removed or replaced. Returns what `fill` did: the
    photographs, and those that could not be read, for whose sake it is not done.
    """
    if is_remote(place):
        raise FlowerrayError(f"{place} is remote: --format {settings.format} needs a local --out")
    request = _request(output, settings)
    try:
        done = _done_before(Folder(place), request, settings)
        if done is None:
            with lease.held(Folder(place), KIND) as folder:
                done = _done_before(folder, request, settings)
                return (done, 0) if done is not None else _build_into(folder, request, fill)
    except OSError as error:
        raise refused(place, error) from None
    say(f"export: {place} is done already")
    return done, 0


def _done_before(folder: Folder, request: dict[str, Any], settings: ExportSettings) -> int | None:
    """The photographs of the export in `folder`; None where it is to be made.

    Raises:
        FlowerrayError: the folder is not this export's to be made in.
    """
    before = _mark_in(folder)
    if before is None:
        return None
    if before["request"] != request and not settings.overwrite:
        raise FlowerrayError(
            f"{folder} holds an export of {_difference(before['request'], request)}: choose "
            "another --out, or --overwrite it"
        )
    if before["photographs"] is not None and not settings.overwrite:
        return int(before["photographs"])
    if not folder.exists(LIST):
        raise FlowerrayError(
            f"{folder} holds an export of an earlier version, which kept no list of its files: "
            "delete it, or choose another --out"
        )
    return None


def _build_into(
    folder: HeldFolder, request: dict[str, Any], fill: Callable[[Path], tuple[int, int]]
) -> tuple[int, int]:
    out = Path(folder.uri)
    content = out / STAGING / "content"
    new = not folder.exists(MARK)
    _delete_listed(out)
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    folder.write(LIST, b"")
    folder.write(MARK, _mark(request, None))
    try:
        photographs, unreadable = fill(content)
        with folder.create(LIST) as stream:
            for kind, name in _contained(content):
                _check_free(os.path.join(os.fsencode(out), name), kind)
                stream.write(kind + name + b"\0")
        _move_up(content, out)
    except FlowerrayError:  # nothing to go on with: leave nothing behind
        _delete_listed(out)
        shutil.rmtree(content, ignore_errors=True)
        if new:
            folder.remove(MARK)
            folder.remove(LIST)
        raise
    if not unreadable:
        folder.write(MARK, _mark(request, photographs))
    return photographs, unreadable


def _contained(content: Path) -> Iterator[tuple[bytes, bytes]]:
    root = os.fsencode(content)
    return ((kind, os.path.relpath(path, root)) for kind, path in _walked(root))


def _check_free(path: bytes, kind: bytes) -> None:
    """Refuse what would replace a user's file, before anything is moved."""
    if os.path.lexists(path) and not (kind == b"d" and os.path.isdir(path)):
        raise FlowerrayError(
            f"{os.fsdecode(path)} is there and of no export: move it away, or choose another --out"
        )


def _walked(directory: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All below `directory` as kind (link, file, directory) and path, a directory after its own."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(entry.path)
                yield b"d", entry.path
            else:
                yield b"l" if entry.is_symlink() else b"f", entry.path


def _move_up(content: Path, out: Path) -> None:
    for entry in sorted(content.iterdir()):
        target = out / entry.name
        if target.is_dir() and entry.is_dir() and not entry.is_symlink():
            _move_up(entry, target)  # beside what a user has put there
        else:
            entry.rename(target)


def _delete_listed(out: Path) -> None:
    """Remove what an export put into `out`, as far as that is what is there now."""
    root = os.fsencode(out)
    for kind, name in _listed(out):
        path = os.path.join(root, name)
        if kind == b"d":
            with suppress(OSError):  # not empty, or gone
                os.rmdir(path)
        elif os.path.lexists(path) and os.path.islink(path) == (kind == b"l"):
            os.unlink(path)


def _listed(out: Path) -> Iterator[tuple[bytes, bytes]]:
    """Kind and path, from `out`, of what an export put there."""
    rest = b""
    try:
        with open(out / LIST, "rb") as stream:
            while data := stream.read(1 << 20):
                *entries, rest = (rest + data).split(b"\0")
                for entry in entries:
                    if not entry.startswith(b"/", 1) and b".." not in entry[1:].split(b"/"):
                        yield entry[:1], entry[1:]
    except FileNotFoundError:
        return


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = [key for key in now if before.get(key) != now[key]]
    if changed == ["state"]:
        return "these labels, which have changed since"
    return "another " + " and ".join(key.replace("_", "-") for key in changed if key != "state")


def _mark_in(folder: Folder) -> dict[str, Any] | None:
    """The mark of the export in `folder`; None where nothing is there yet."""
    there = folder.exists(MARK)
    lease.check_ours(folder, KIND, recorded=there)
    if not there:
        return None
    try:
        mark = json.loads(folder.read(MARK))
        return {"request": dict(mark["request"]), "photographs": mark["photographs"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise FlowerrayError(
            f"{folder.file(MARK)} is no record of flowerray's: choose another --out"
        ) from None


def _mark(request: dict[str, Any], photographs: int | None) -> bytes:
    return json.dumps({"request": request, "photographs": photographs}, indent=2).encode()
