"""What a directory of ours holds, told by its records before anything is computed."""

from __future__ import annotations

import json
import os
from contextlib import suppress

from flowerray.errors import FlowerrayError
from flowerray.stores import WEB_SCHEMES, expanded, is_remote, scheme_of
from flowerray.stores.folder import Folder

MADE_BY = {"features": "flowerray extract", "labels": "flowerray label"}


def kind_in(folder: Folder) -> str | None:
    """What `folder` holds: "features", "labels", "a classifier", or None without such a record."""
    run, about = _record(folder, "run.json"), _record(folder, "classifier.json")
    if "manifest" in run and run.get("kind") in MADE_BY:
        return str(run["kind"])
    return "a classifier" if "head_sha256" in about else None


def kind_of(source: str) -> str | None:
    """As `kind_in`, of a source that somebody named."""
    if scheme_of(source) in WEB_SCHEMES:  # a page or a list: no job writes there
        return None
    return kind_in(_folder(source))


def check_photographs(source: str) -> None:
    """
    Raises:
        FlowerrayError: `source` is the directory or prefix of what a job wrote, no photographs.
    """
    if kind := kind_of(source):
        raise FlowerrayError(f"{source} holds {kind}, no photographs: name the photographs instead")


def _folder(source: str) -> Folder:
    return Folder(source if is_remote(source) else os.path.abspath(expanded(source)))


def _record(folder: Folder, name: str) -> dict[str, object]:
    with suppress(OSError, ValueError):
        found = json.loads(folder.read(name))
        return found if isinstance(found, dict) else {}
    return {}
