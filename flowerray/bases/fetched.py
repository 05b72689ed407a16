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
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import platformdirs

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores import About, credentials

MOST_BYTES = 16 << 30  # of all files of one place
DEADLINE_SECONDS = 3600.0  # for all of them
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

    Raises:
        FlowerrayError: nothing is there, or nothing `wanted`; the storage refuses; there is more
            than MOST_BYTES, or it takes more than DEADLINE_SECONDS.
    """
    place = credentials.bare(place)
    if place.startswith(HUGGING_FACE):
        return _from_hugging_face(place, wanted, say)
    if stores.is_remote(place):
        return _from_store(place, wanted, say)
    path = Path(stores.expanded(place))
    if not path.exists():
        raise FlowerrayError(f"{place}: no such file or directory")
    return path


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


def _from_store(place: str, wanted: Sequence[str], say: Callable[[str], None]) -> Path:
    ends = time.monotonic() + DEADLINE_SECONDS
    path = place.partition("://")[2].partition("/")[2]
    if place.lower().startswith(("http://", "https://")):
        path = re.split("[?#]", path, maxsplit=1)[0]
    name = path.rpartition("/")[2]
    try:
        if _is_file(name, wanted):
            found = {name: (place, stores.source_at(place).about(place))}
        else:
            found = dict(_files_in(place.rstrip("/"), wanted))
            name = "."
        if not found:
            raise FlowerrayError(f"{place} has none of {', '.join(wanted)}")
        _check_size(place, sum(about.size or 0 for _, about in found.values()))
        tags = {name: about.tag for name, (_, about) in found.items()}
        if (kept := _kept(place, tags)).is_dir():
            return kept / name
        say(f"fetching {place}")
        pending = kept.with_name(f"{uuid.uuid4().hex}.tmp")
        try:
            for relative, (uri, _) in found.items():
                sha256 = _download(place, uri, pending / relative, ends)
                tags[relative] = tags[relative] or sha256
            return _settled(pending, _kept(place, tags)) / name
        finally:
            shutil.rmtree(pending, ignore_errors=True)
    except FileNotFoundError:
        raise FlowerrayError(f"{place}: nothing is there") from None
    except OSError as error:
        raise FlowerrayError(f"{place}: {error.strerror or error}") from None


def _files_in(directory: str, wanted: Sequence[str]) -> Iterator[tuple[str, tuple[str, About]]]:
    """Of each file `wanted` in `directory` its name in there, its uri, and what is known of it."""
    store = stores.source_at(directory)
    names = {pattern for pattern in wanted if not re.search(r"[*?[]", pattern)}
    if names != set(wanted):
        for page in store.files(directory + "/"):
            below = (uri.removeprefix(directory + "/") for uri, _ in page)
            names |= {name for name in below if matches(name, wanted) and is_safe(name)}
    for name in sorted(names):
        uri = f"{directory}/{name}"
        try:
            yield name, (uri, store.about(uri))
        except FileNotFoundError:
            continue


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


def _from_hugging_face(place: str, wanted: Sequence[str], say: Callable[[str], None]) -> Path:
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
    asked = json.dumps([repository, revision, patterns, MOST_BYTES])
    say(f"fetching {place}, unless Hugging Face's cache has it")
    try:
        # In a process of its own: the library knows no deadline for a whole file.
        done = subprocess.run(
            [sys.executable, "-m", "flowerray.bases.hugging_face", asked],
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
    try:
        return _linked(place, Path(done.stdout.strip()), patterns) / below
    except OSError as error:
        raise FlowerrayError(f"{place}: {error.filename}: {error.strerror}") from None


def _linked(place: str, snapshot: Path, patterns: Sequence[str]) -> Path:
    """The files of `snapshot` that `patterns` take, in a directory with no links to elsewhere: of
    Hugging Face's cache each is one, and readers of ONNX follow none to data out of its directory.
    """
    found = dict(files_of(snapshot, patterns))
    blobs = {name: os.path.realpath(file) for name, file in found.items()}
    kept = _kept(place, {name: f"{blob} {os.stat(blob).st_size}" for name, blob in blobs.items()})
    if kept.is_dir():
        return kept
    pending = kept.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        for name, blob in blobs.items():
            target = pending / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(blob, target)
            except OSError:  # of another file system
                shutil.copyfile(blob, target)
        return _settled(pending, kept)
    finally:
        shutil.rmtree(pending, ignore_errors=True)
