"""An output and its record, run.json: what was asked for, over which photographs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.outputs import lease
from flowerray.outputs.kinds import MADE_BY, kind_in
from flowerray.outputs.lease import HeldFolder
from flowerray.outputs.manifest import Manifest, Shard
from flowerray.settings import InferenceSettings
from flowerray.stores.folder import Folder, unreadable

OUR_NAMES = r"\d{12}\.parquet"  # of shards, and of parts of the manifest


@dataclass(frozen=True)
class Output:
    """An output directory set up for one configuration over one manifest.

    `retry` names the committed shards whose rejected rows are to be tried again.
    """

    folder: Folder
    manifest: Manifest
    run: dict[str, Any]
    retry: frozenset[str] = frozenset()

    @property
    def classes(self) -> list[str]:
        """Of labels: the classes that are given as a label."""
        config = self.run["config"]
        return [name for name in config["classes"] if name != config.get("none_class")]

    def missing(self) -> list[Shard]:
        """The shards not committed yet, in order."""
        there = self.folder.names("shards")
        return [shard for shard in self.manifest.shards() if shard.name not in there]

    def to_do(self) -> list[Shard]:
        """The shards not committed yet or to be retried, in order."""
        there = self.folder.names("shards") - self.retry
        return [shard for shard in self.manifest.shards() if shard.name not in there]

    def check_whole(self) -> None:
        """
        Raises:
            FlowerrayError: shards are missing.
        """
        missing = len(self.missing())
        if missing:
            raise FlowerrayError(
                f"{self.folder} lacks {missing} of its {len(self.manifest.shards())} shards: run "
                f"the same `{MADE_BY[self.run['kind']]}` again to finish it"
            )

    def metadata(self, shard: Shard) -> dict[str, str]:
        """The key-value metadata of `shard`'s file, under the one key ``flowerray``."""
        about = {key: self.run[key] for key in ("kind", "config", "flowerray_version")}
        about["listing_fingerprint"] = self.manifest.listing_of(shard).fingerprint
        return {"flowerray": json.dumps(about)}


@contextmanager
def writing(settings: InferenceSettings, kind: str) -> Iterator[HeldFolder]:
    """``settings.out``, for the length of the block this job's alone to write `kind` to.

    Raises:
        FlowerrayError: it holds something else, or another job writes there.
    """
    folder = Folder.at(settings.out)
    record_to_go_on_with(folder, kind)
    with lease.held(folder, kind) as mine:
        yield mine


def our_names(folder: Folder, directory: str) -> list[str]:
    """The files in `directory` that have the name of a shard or of a part of the manifest."""
    return sorted(name for name in folder.names(directory) if re.fullmatch(OUR_NAMES, name))


def recorded_spec(folder: Folder, settings: InferenceSettings, kind: str) -> BaseSpec | None:
    """The base spec of the output that `folder` holds and the job goes on with, if any.

    Raises:
        FlowerrayError: it holds something else.
    """
    before = None if settings.overwrite else record_to_go_on_with(folder, kind)
    return BaseSpec.from_dict(before["config"]["base_spec"]) if before else None


def with_base_spec(output: Output, spec: BaseSpec) -> Output:
    """`output` with `spec` in its record; no shard may be there yet."""
    return with_record(output, config={**output.run["config"], "base_spec": asdict(spec)})


def with_record(output: Output, **entries: Any) -> Output:
    """`output` with these `entries` in its record."""
    run = {**output.run, **entries}
    output.folder.write("run.json", json.dumps(run, indent=2).encode())
    return replace(output, run=run)


def without_record(output: Output, name: str) -> Output:
    """`output` without the entry `name` in its record."""
    if name not in output.run:
        return output
    return with_record(replace(output, run={k: v for k, v in output.run.items() if k != name}))


def read_output(directory: str, kind: str, deciding: bool = False) -> Output:
    """The output of an earlier job of `kind`; with `deciding`, labels that a cut-short accept has
    left between two decisions, too.

    Raises:
        FlowerrayError: `directory` holds none.
    """
    folder = Folder.at(directory)
    run = _record_in(folder, kind)
    if run is None:
        there = kind_in(folder)
        found = f"{directory} holds {there}, no {kind}" if there else f"no {kind} in {directory}"
        raise FlowerrayError(f"{found}: give the --out of `{MADE_BY[kind]}`")
    if "deciding" in run and not deciding:
        raise FlowerrayError(
            f"an accept of {folder} has not ended: wait for it, or run `flowerray accept` again to "
            "finish it"
        )
    return _read_whole(folder, run)


def read_any_output(directory: str) -> Output:
    """The output of an earlier extract or label, whichever it is.

    Raises:
        FlowerrayError: `directory` holds neither.
    """
    folder = Folder.at(directory)
    run = _record_in(folder)
    if run is None:
        raise FlowerrayError(
            f"no output in {directory}: give the --out of `flowerray extract` or `flowerray label`"
        )
    return _read_whole(folder, run)


def _read_whole(folder: Folder, run: dict[str, Any]) -> Output:
    if run.get("retiring"):
        raise FlowerrayError(
            f"a --sync of {folder} has not ended: wait for it, or run the same "
            f"`{MADE_BY[run['kind']]} --sync` again to finish it"
        )
    return Output(folder, Manifest.from_dict(run["manifest"]), run)


def record_to_go_on_with(folder: Folder, kind: str) -> dict[str, Any] | None:
    """The record in `folder`; None where nothing is that writing there could harm."""
    run = _record_in(folder, kind)
    lease.check_ours(folder, kind, recorded=run is not None)
    if run is None and our_names(folder, "shards"):
        raise FlowerrayError(
            f"{folder} has shards/ and not the run.json that they belong to: choose another --out"
        )
    return run


def _record_in(folder: Folder, kind: str | None = None) -> dict[str, Any] | None:
    """The record of an output of `kind`, or of any, in `folder`; None where there is none."""
    file = folder.file("run.json")
    try:
        run: dict[str, Any] = json.loads(folder.read("run.json"))
        Manifest.from_dict(run["manifest"])
        unknown = run["config"].get("base_spec", {}).keys() - BaseSpec.__dataclass_fields__
        known = run["kind"] in MADE_BY and not unknown
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(folder, error) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise FlowerrayError(
            f"{file} is no record of flowerray's, or a later version's: choose another directory, "
            "or upgrade"
        )
    if kind and run["kind"] != kind:
        raise FlowerrayError(f"{folder} holds {run['kind']}, not {kind}: choose another directory")
    return run
