"""Setting up an output to write: made anew, gone on with, appended to, or synced."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray import stores
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.outputs import comparison
from flowerray.outputs.derived import ACCEPTANCE, EVIDENCE, SAMPLE, THRESHOLDS, delete_derived
from flowerray.outputs.lease import SCRATCH
from flowerray.outputs.manifest import Listing, Manifest, Shard, rows_of, write_listing
from flowerray.outputs.record import Output, our_names, record_to_go_on_with, with_record
from flowerray.outputs.shards import (
    READS_IN_FLIGHT,
    iter_shards,
    read_shard,
    shard_names,
    write_shard,
)
from flowerray.settings import InferenceSettings
from flowerray.stores.folder import Folder
from flowerray.version import __version__


def open_output(
    folder: Folder,
    settings: InferenceSettings,
    kind: str,
    config: Mapping[str, Any],
    photographs: Iterable[pa.RecordBatch],
) -> Output:
    """Set up `folder`, or find it set up for the same work: then the job goes on there.

    Raises:
        FlowerrayError: it holds something else, or work of another configuration or input.
    """
    before = record_to_go_on_with(folder, kind)
    if before is not None and settings.overwrite:
        photographs = iter(photographs)
        # Raises where there are none: then nothing is deleted.
        first = next(batch for batch in photographs if len(batch))
        photographs = chain([first], photographs)
        _delete(folder, before)
        before = None
    if before is not None:
        _check_config(folder, before, config)
        if before.get("retiring"):  # a --sync was cut short
            then = Manifest.from_dict(before["manifest"])
            before = _settled(Output(folder, then, before)).run
        if settings.retry_rejected:
            return _to_retry(
                Output(folder, Manifest.from_dict(before["manifest"]), before), photographs
            )
    drawn: set[bool] = set()
    photographs = _noting_draws(photographs, drawn)
    # Without run.json nothing in manifest/ counts yet; with it, what is there now lies beside.
    listed = "manifest" if before is None else f"{SCRATCH}/{uuid.uuid4().hex[:12]}"
    try:
        if before is None:
            _delete_files(folder, "manifest")
        listing = write_listing(photographs, folder, listed, settings.shard_size)
        manifest = Manifest((listing,))
        if before is not None:
            then = Manifest.from_dict(before["manifest"])
            if then.fingerprint == manifest.fingerprint:
                manifest = then
            else:
                output = Output(folder, then, before)
                output = _appended(output, listed, listing, settings, by_split=drawn == {False})
                before, manifest = output.run, output.manifest
    except BaseException:
        if before is None:
            with suppress(FlowerrayError):
                _delete_files(folder, "manifest")
        raise
    finally:
        if before is not None:
            folder.tidy(listed)
    run = {
        "kind": kind,
        "flowerray_version": __version__,  # which every shard of the output names
        **(before or {}),
        "config": before["config"] if before else dict(config),
        "manifest": manifest.as_dict(),
    }
    if run != before:
        folder.write("run.json", json.dumps(run, indent=2).encode())
    return Output(folder, manifest, run)


def _delete(folder: Folder, run: Mapping[str, Any]) -> None:
    """Remove an output, and nothing else that lies there. Until run.json goes, what is left is a
    smaller one of the same run; then it is none."""
    _delete_files(folder, "shards")
    delete_derived(folder, run)
    if run["config"].get("base_spec", {}).get("precision") == "int8":
        folder.remove("int8.npz")
    if run["kind"] == "labels":
        for name in (EVIDENCE, SAMPLE, THRESHOLDS):
            folder.remove(name)
    folder.remove("run.json")
    _delete_files(folder, "manifest")


def _delete_files(folder: Folder, directory: str) -> None:
    folder.remove_files(directory, our_names(folder, directory))


def _noting_draws(
    photographs: Iterable[pa.RecordBatch], drawn: set[bool]
) -> Iterator[pa.RecordBatch]:
    """`photographs`, with whether their splits were `drawn`."""
    for batch in photographs:
        drawn.add(bool(batch.schema.metadata))
        yield batch


def _appended(
    output: Output, listed: str, listing: Listing, settings: InferenceSettings, by_split: bool
) -> Output:
    """`output` with the photographs of `listing` that it lacks as a listing more; with --sync
    without those that are gone."""
    folder, manifest = output.folder, output.manifest
    if not (settings.append or settings.sync):
        raise FlowerrayError(
            f"{folder} was made from other photographs ({manifest.rows:,} then, {listing.rows:,} "
            "now, or changed ones): --append adds the new ones, --sync also retires those that are "
            "gone, --overwrite starts anew, or choose another --out"
        )
    with comparison.compared(folder, manifest, listed, by_split) as difference:
        retired, example = difference.retired()
        if len(retired) and not settings.sync:
            raise FlowerrayError(
                f"{len(retired):,} photographs of {folder} are gone, or have another label or "
                f"split now ({example}): --sync retires their rows and adds what is new"
            )
        if len(retired) == manifest.rows:
            raise FlowerrayError(
                f"all {manifest.rows:,} photographs of {folder} are gone or changed ({example}): "
                "is a disk not mounted? --overwrite starts anew"
            )
        if len(retired):
            output = _without(output, retired)
        # A crash before run.json names them leaves files of the same names, which are written
        # again.
        end = output.manifest.end
        new = difference.new()
        added = write_listing(new, folder, "manifest", settings.shard_size, end)
    if added.rows:
        output = replace(output, manifest=Manifest((*output.manifest.listings, added)))
    return output


def _without(output: Output, ids: np.ndarray) -> Output:
    """`output` without the rows of these sorted `ids`. The record says so from before the first
    file is changed until after the last, so that one that is killed is gone on with."""
    delete_derived(output.folder, output.run)
    output = with_record(output, retiring=True)
    comparison.drop_rows(output.folder, output.manifest, ids)
    touched = (
        shard
        for shard in output.manifest.shards()
        if np.diff(np.searchsorted(ids, [shard.first_row, shard.first_row + shard.rows]))[0]
    )
    return _settled(output, touched)


def _settled(output: Output, touched: Iterable[Shard] | None = None) -> Output:
    """`output` with its `touched` shards, by default all, without rows that its manifest lacks."""
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        among = output.manifest.shards() if touched is None else touched
        for done in [pool.submit(_settle, output, shard) for shard in among]:
            done.result()
    manifest = comparison.recounted(output.folder, output.manifest)
    run = {k: v for k, v in output.run.items() if k != "retiring"}
    output = replace(output, manifest=manifest, run=run)
    return with_record(output, manifest=manifest.as_dict())


def _settle(output: Output, shard: Shard) -> None:
    there = read_shard(output, shard)
    if there is None:
        return
    wanted = rows_of(output.folder, output.manifest, shard)["image_id"]
    kept = there.filter(pc.is_in(there["image_id"], value_set=wanted.combine_chunks()))
    if len(kept) < len(there):
        write_shard(output, shard, kept)


def _to_retry(output: Output, photographs: Iterable[pa.RecordBatch]) -> Output:
    """`output` with the shards that have rejected rows. The list of `photographs` is read only
    where it may have signed addresses, which no manifest keeps."""
    first = rows_of(output.folder, output.manifest, output.manifest.shards()[0])
    if any(stores.scheme_of(uri) in stores.WEB_SCHEMES for uri in first["uri"][:1].to_pylist()):
        deque(photographs, maxlen=0)
    tables = zip(shard_names(output), iter_shards(output, ["error"]), strict=True)
    rejected = {name for name, table in tables if table["error"].null_count < len(table)}
    return replace(output, retry=frozenset(rejected))


def _check_config(folder: Folder, before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    recorded = {k: v for k, v in before["config"].items() if k not in ACCEPTANCE}
    if "base_spec" in recorded:  # of an earlier version, it may lack a field
        recorded["base_spec"] = asdict(BaseSpec.from_dict(recorded["base_spec"]))
    if recorded != dict(config):
        names = sorted({*recorded, *config})
        changed = [k for k in names if recorded.get(k) != config.get(k)]
        if changed == ["base_spec"]:
            then, now = (BaseSpec.from_dict(c["base_spec"]) for c in (recorded, config))
            changed = [then.differences(now)]
        raise FlowerrayError(
            f"{folder} was made with other settings ({', '.join(changed)}): choose another --out, "
            "or --overwrite it"
        )
