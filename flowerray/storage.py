"""Directories that are written atomically: a file is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flowerray.errors import FlowerrayError, UsageError


@dataclass(frozen=True)
class Folder:
    """A directory of one job's output. Readers see only committed files.

    A file is written to ``tmp/`` inside the folder, flushed to the disk, and renamed to its name.
    """

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Folder:
        """The folder at `path`, made absolute so that every actor means the same place.

        Raises:
            UsageError: `path` is relative inside a Ray job, whose directory is a passing copy.
        """
        expanded = os.path.expanduser(path)
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not os.path.isabs(expanded):
            raise UsageError(
                f"{path} is relative, and a Ray job runs in a temporary copy of the directory it "
                "was submitted from: give an absolute path that every node sees"
            )
        return cls(Path(os.path.abspath(expanded)))

    def __str__(self) -> str:
        return str(self.path)

    def file(self, name: str) -> Path:
        """The path of `name` in here, there or not."""
        return self.path / name

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write `name`: it appears, or replaces what was there, when the block ends well.

        Raises:
            FlowerrayError: the storage refuses (disk full, read-only, no permission).
        """
        with whole_file(self.path / name, self.path / "tmp") as stream:
            yield stream

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write `data` as `name`, atomically."""
        with self.create(name) as stream:
            stream.write(data)

    def clear(self, directory: str) -> None:
        """Remove `directory` and all in it: tmp/, say, for when nobody writes here any more."""
        shutil.rmtree(self.path / directory, ignore_errors=True)

    def names(self, directory: str) -> set[str]:
        """The names of the committed files in `directory`; empty where it is not there."""
        try:
            return {entry.name for entry in os.scandir(self.path / directory)}
        except FileNotFoundError:
            return set()


@contextmanager
def whole_file(target: Path, beside: Path) -> Iterator[BinaryIO]:
    """Write `target`: it appears, or replaces what was there, when the block ends well. Until then
    it is a file in the directory `beside`, which must be on the same storage.

    Raises:
        FlowerrayError: the storage refuses (disk full, read-only, no permission).
    """
    pending = beside / f"{target.name[:64]}.{uuid.uuid4().hex[:12]}"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(pending, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(pending, target)
    except OSError as error:
        raise FlowerrayError(
            f"can't write {target}: {error.strerror or error}; make room or choose another "
            "--out, then run the same command again"
        ) from error
    finally:
        pending.unlink(missing_ok=True)
