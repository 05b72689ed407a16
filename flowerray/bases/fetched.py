"""A model's files from wherever a company keeps them, in a directory of this machine.

A path is used where it is. What lies in a bucket, on a web server or in a repository of Hugging
Face's is brought into a cache, once for as long as it stays the same there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import platformdirs

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores import About, credentials

MOST_BYTES = 16 << 30  # of all files of one place
DEADLINE_SECONDS = 3600.0  # for all of them
NAMES_SHOWN = 8  # of the files in a directory, in a message
HUGGING_FACE = "hf://"
HF_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w.%-]+))?(?:/(.*))?", re.ASCII)


def cache_directory() -> Path:
    """``$FLOWERRAY_CACHE``, or the user's cache directory."""
    return Path(os.environ.get("FLOWERRAY_CACHE") or platformdirs.user_cache_dir("flowerray"))


def local(place: str, wanted: Sequence[str], say: Callable[[str], None] = print) -> Path:
    """The file or directory that `place` stands for, on this machine.

    Args:
        place: a path, which is given back as it is; an address in a bucket or on a web server, read
            by the access in use (see ``flowerray.stores.use``); or
            ``hf://ORG/MODEL[@REVISION][/PATH]``, by huggingface_hub's cache and else its download.
        wanted: names and patterns, as fnmatch has them (a ``*`` takes a ``/`` too), of the files
            below a directory that are brought here; what matches none is not. A place whose last
            part matches one of them is that file alone. A web server is asked for its listing
            only if there is a pattern with a wildcard.
        say: told what is fetched.

    What is in Hugging Face's cache is used there: each file is a link, to one called by a hash.

    Raises:
        FlowerrayError: nothing is there, or nothing `wanted`; the storage refuses; there is more
            than MOST_BYTES, or it takes more than DEADLINE_SECONDS.
    """
    return _brought(place, wanted, None, say)[0]


def only_file(place: str, wanted: Sequence[str], say: Callable[[str], None] = print) -> Path:
    """The one file that `place` is, or that is `wanted` of the directory it is: see `local`; of a
    path's own directory, not of those below.

    Raises:
        FlowerrayError: as `local`, and where a directory has several.
    """
    root, names = _brought(place, wanted, 1, say)
    if root.is_file():
        return root
    if names is None:
        there = sorted(entry.name for entry in root.iterdir())
        names = [name for name in there if matches(name, wanted) and (root / name).is_file()]
        if fault := fault_of(names, there, wanted, 1):
            raise FlowerrayError(f"{place} {fault}")
    return root / names[0]


def fault_of(
    found: Sequence[str], there: Sequence[str], wanted: Sequence[str], most: int | None
) -> str | None:
    """What is wrong with a directory that has the files `there`, those `found` of them being
    `wanted` and `most` allowed; None where nothing is."""
    if not found:
        but = f", but {_listed(there)}" if there else ""
        return f"has none of {', '.join(wanted)}{but}"
    if most is not None and len(found) > most:
        return f"has several: name one of {_listed(found)}"
    return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN:,} more"


def _brought(
    place: str, wanted: Sequence[str], most: int | None, say: Callable[[str], None]
) -> tuple[Path, list[str] | None]:
    """What `place` stands for, and the names in there of the files that were brought, no more than
    `most`; None of a path, of which nothing is."""
    place = credentials.bare(place)
    if place.startswith(HUGGING_FACE):
        return _from_hugging_face(place, wanted, most, say)
    if stores.is_remote(place):
        return _from_store(place, wanted, most, say)
    path = Path(stores.expanded(place))
    if not path.exists():
        raise FlowerrayError(f"{place}: no such file or directory")
    return path, None


def is_safe(name: str) -> bool:
    """Whether the relative `name`, which a server chose, stays below the directory it is put in."""
    parts = name.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in name or "\0" in name)


def files_of(directory: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The files below `directory` that any pattern of `wanted` takes, by their names in there."""
    for file in sorted(directory.rglob("*")):
        name = file.relative_to(directory).as_posix()
        if matches(name, wanted) and file.is_file():
            yield name, file


def matches(name: str, wanted: Sequence[str]) -> bool:
    """Whether any pattern of `wanted` takes the relative `name`."""
    return any(fnmatchcase(name, pattern) for pattern in wanted)


def _is_file(name: str, wanted: Sequence[str]) -> bool:
    """Whether a place whose last part is `name` is a file, not a directory of such."""
    return matches(name, [PurePosixPath(pattern).name for pattern in wanted])


def _from_store(
    place: str, wanted: Sequence[str], most: int | None, say: Callable[[str], None]
) -> tuple[Path, list[str]]:
    ends = time.monotonic() + DEADLINE_SECONDS
    path = place.partition("://")[2].partition("/")[2]
    if place.lower().startswith(("http://", "https://")):
        path = re.split("[?#]", path, maxsplit=1)[0]
    name = path.rpartition("/")[2]
    try:
        if _is_file(name, wanted):
            found = {name: (place, stores.source_at(place).about(place))}
        else:
            found, there = _files_in(place.rstrip("/"), wanted)
            if fault := fault_of([*found], there, wanted, most):
                raise FlowerrayError(f"{place} {fault}")
            name = "."
        _check_size(place, sum(about.size or 0 for _, about in found.values()))
        tags = {relative: about.tag for relative, (_, about) in found.items()}
        if (kept := _kept(place, tags)).is_dir():
            return kept / name, [*found]
        say(f"fetching {place}")
        pending = kept.with_name(f"{uuid.uuid4().hex}.tmp")
        try:
            for relative, (uri, _) in found.items():
                sha256 = _download(place, uri, pending / relative, ends)
                tags[relative] = tags[relative] or sha256
            return _settled(pending, _kept(place, tags)) / name, [*found]
        finally:
            shutil.rmtree(pending, ignore_errors=True)
    except FileNotFoundError:
        raise FlowerrayError(f"{place}: nothing is there") from None
    except OSError as error:
        raise FlowerrayError(f"{place}: {error.strerror or error}") from None


def _files_in(
    directory: str, wanted: Sequence[str]
) -> tuple[dict[str, tuple[str, About]], list[str]]:
    """Of each file `wanted` in `directory`, by its name in there, its uri and what is known of it;
    and the names of all, if they were listed.

    Raises:
        FlowerrayError: it can't be listed.
    """
    store = stores.source_at(directory)
    names = {pattern for pattern in wanted if not re.search(r"[*?[]", pattern)}
    there: list[str] = []
    if names != set(wanted):
        try:
            for page in store.files(directory + "/"):
                there += [uri.removeprefix(directory + "/") for uri, _ in page]
        except FlowerrayError:  # of a web server
            raise FlowerrayError(
                f"{directory} is neither one of {', '.join(wanted)} nor a directory that is listed"
            ) from None
        names |= {name for name in there if matches(name, wanted) and is_safe(name)}
    found = {}
    for name in sorted(names):
        with suppress(FileNotFoundError):
            found[name] = (uri := f"{directory}/{name}", store.about(uri))
    return found, there


def _check_size(place: str, size: int) -> None:
    if size > MOST_BYTES:
        raise FlowerrayError(
            f"{place} has {size / 1e9:,.1f} GB, more than the {MOST_BYTES / 1e9:,.1f} GB that are "
            "fetched: bring the file over by hand"
        )


def _download(place: str, uri: str, target: Path, ends: float) -> str:
    """Write what `uri` has into `target`; returns its SHA-256."""
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as stream:
        for piece in stores.source_at(uri).pieces(uri):
            size += len(piece)
            _check_size(place, size)
            if time.monotonic() > ends:
                raise _too_slow(place)
            digest.update(piece)
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _too_slow(place: str) -> FlowerrayError:
    return FlowerrayError(
        f"{place} was not here after {DEADLINE_SECONDS:,.0f} seconds: bring the file over by hand"
    )


def _kept(place: str, tags: dict[str, str | None]) -> Path:
    """Where the files of `place` lie in the cache, as long as each has its tag."""
    made = hashlib.sha256(json.dumps([place, sorted(tags.items())]).encode()).hexdigest()
    return cache_directory() / "fetched" / made[:32]


def _settled(pending: Path, kept: Path) -> Path:
    """Let `pending` be `kept`, unless another process was first."""
    try:
        os.rename(pending, kept)
    except OSError:
        if not kept.is_dir():
            raise
    return kept


def _from_hugging_face(
    place: str, wanted: Sequence[str], most: int | None, say: Callable[[str], None]
) -> tuple[Path, list[str]]:
    if (address := HF_ADDRESS.fullmatch(place)) is None:
        raise UsageError(f"{place} is none of hf://ORG/MODEL[@REVISION][/PATH]")
    repository, revision, below = address[1], unquote(address[2] or "main"), address[3] or ""
    below = below.rstrip("/")
    words = [*repository.split("/"), *revision.split("/"), *(below.split("/") if below else ())]
    if not is_safe("/".join(words)) or re.search(r"[*?[\]]", below):
        raise UsageError(f"{place}: no such name can be in a repository")
    if find_spec("huggingface_hub") is None:
        raise FlowerrayError(f"{place} needs huggingface_hub: pip install 'flowerray[hf]'")
    if below and _is_file(PurePosixPath(below).name, wanted):
        patterns = [below]
    else:
        patterns = [f"{below}/{pattern}" if below else pattern for pattern in wanted]
    say(f"fetching {place}, unless Hugging Face's cache has it")
    snapshot = _snapshot(place, [repository, revision, patterns, most, MOST_BYTES])
    names = [name.removeprefix(f"{below}/") for name, _ in files_of(snapshot, patterns)]
    return snapshot / below, names


def _snapshot(place: str, asked: list[Any]) -> Path:
    """What ``flowerray.bases.hugging_face.directory_of`` gives, in a process of its own: the
    library knows no deadline for a whole file."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flowerray.bases.hugging_face", json.dumps(asked)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(place) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it ended early"])[-1]
        raise FlowerrayError(f"{place}: {reason}")
    return Path(done.stdout.strip())
