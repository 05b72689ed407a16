"""What an output directory holds: its schemas, its shards, and the record of what made it.

OUT/run.json                    kind, configuration, manifest; written last of the set-up
OUT/manifest/FIRST-ROW.parquet  every photograph, in order
OUT/shards/FIRST-ROW.parquet    one a shard, there whole or not at all
OUT/.flowerray/                 what passes with the job, see flowerray.lease
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import flowerray
from flowerray import catalog, lease, listings, stores
from flowerray.bases import BaseSpec
from flowerray.catalog import MANIFEST, Listing, Manifest, Shard
from flowerray.errors import FlowerrayError
from flowerray.kinds import kind_in
from flowerray.lease import SCRATCH, HeldFolder
from flowerray.photographs import Rejected
from flowerray.settings import InferenceSettings
from flowerray.storage import Folder, unreadable

ERROR: list[tuple[str, pa.DataType]] = [("error", pa.string()), ("error_detail", pa.string())]
LABELS: pa.Schema = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("top_k", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))),
        ("novelty", pa.float32()),
        ("accepted", pa.bool_()),
        *ERROR,
    ]
)

REVIEW = "review.parquet"
BEGINNINGS = {"csv": b"image_id,", "jsonl": b'{"image_id"'}  # of a file of all labels
OUR_NAMES = r"\d{12}\.parquet"  # of shards, and of parts of the manifest

MADE_BY = {"features": "flowerray extract", "labels": "flowerray label"}
READS_IN_FLIGHT = 16  # of shards, by one that goes through all of them,
BYTES_READ_AHEAD = 128 << 20  # if they are not larger in all than this


def features_schema(feature_length: int, mirrored: bool = False) -> pa.Schema:
    """Feature shards: the manifest's row, `feature_length` float16 values (flattened in C order
    from the shape in the metadata), perhaps as many of the mirror image, and the reason where there
    are none."""
    names = ["features", "features_mirrored"] if mirrored else ["features"]
    features = [pa.field(name, pa.list_(pa.float16(), feature_length)) for name in names]
    columns = [f for f in MANIFEST if f.name != "size"]
    return pa.schema([*columns, *features, *ERROR])


@dataclass(frozen=True)
class Output:
    """An output directory set up for one configuration over one manifest.

    `retry` names the committed shards whose rejected rows are to be tried again.
    """

    folder: Folder
    manifest: Manifest
    run: dict[str, Any]
    retry: frozenset[str] = frozenset()

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
def written(settings: InferenceSettings, kind: str) -> Iterator[HeldFolder]:
    """``settings.out``, for the length of the block this job's alone to write `kind` to.

    Raises:
        FlowerrayError: it holds something else, or another job writes there.
    """
    folder = Folder.at(settings.out)
    _record_to_go_on_with(folder, kind)
    with lease.held(folder, kind) as mine:
        yield mine


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
    before = _record_to_go_on_with(folder, kind)
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
        listing = catalog.write_listing(photographs, folder, listed, settings.shard_size)
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
        "flowerray_version": flowerray.__version__,  # which every shard of the output names
        **(before or {}),
        "config": dict(config),
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
    folder.remove("run.json")
    _delete_files(folder, "manifest")


def _delete_files(folder: Folder, directory: str) -> None:
    folder.remove_files(directory, _our_names(folder, directory))


def _our_names(folder: Folder, directory: str) -> list[str]:
    """The files in `directory` that have the name of a shard or of a part of the manifest."""
    return sorted(name for name in folder.names(directory) if re.fullmatch(OUR_NAMES, name))


def delete_derived(folder: Folder, run: Mapping[str, Any]) -> None:
    """Remove what was made of all labels of an output, since these are to change."""
    if run["config"].get("thresholds") is not None:
        folder.remove(REVIEW)
    for ending in BEGINNINGS:
        if _is_of_ours(folder, ending):
            folder.remove(f"labels.{ending}")


def check_derived(folder: Folder, ending: str) -> None:
    """
    Raises:
        FlowerrayError: a file of the user's own is where that of all labels is to be.
    """
    if _is_of_ours(folder, ending) is False:
        raise FlowerrayError(
            f"{folder.file(f'labels.{ending}')} is there and none of flowerray's: move it away"
        )


def _is_of_ours(folder: Folder, ending: str) -> bool | None:
    """Whether the file of all labels was written here, by how it begins; None: there is none."""
    try:
        with folder.open(f"labels.{ending}") as stream:
            return bytes(stream.read(64)).startswith(BEGINNINGS[ending])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(folder.file(f"labels.{ending}"), error) from None


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
    with listings.compared(folder, manifest, listed, by_split) as difference:
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
        added = catalog.write_listing(new, folder, "manifest", settings.shard_size, end)
    if added.rows:
        output = replace(output, manifest=Manifest((*output.manifest.listings, added)))
    return output


def _without(output: Output, ids: np.ndarray) -> Output:
    """`output` without the rows of these sorted `ids`. The record says so from before the first
    file is changed until after the last, so that one that is killed is gone on with."""
    delete_derived(output.folder, output.run)
    output = with_record(output, retiring=True)
    listings.drop_rows(output.folder, output.manifest, ids)
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
    manifest = listings.recounted(output.folder, output.manifest)
    run = {k: v for k, v in output.run.items() if k != "retiring"}
    output = replace(output, manifest=manifest, run=run)
    return with_record(output, manifest=manifest.as_dict())


def _settle(output: Output, shard: Shard) -> None:
    there = read_shard(output, shard)
    if there is None:
        return
    wanted = catalog.read_shard(output.folder, output.manifest, shard)["image_id"]
    kept = there.filter(pc.is_in(there["image_id"], value_set=wanted.combine_chunks()))
    if len(kept) < len(there):
        write_shard(output, shard, kept)


def _to_retry(output: Output, photographs: Iterable[pa.RecordBatch]) -> Output:
    """`output` with the shards that have rejected rows. The list of `photographs` is read only
    where it may have signed addresses, which no manifest keeps."""
    first = catalog.read_shard(output.folder, output.manifest, output.manifest.shards()[0])
    if any(stores.scheme_of(uri) in stores.WEB_SCHEMES for uri in first["uri"][:1].to_pylist()):
        deque(photographs, maxlen=0)
    tables = zip(_shard_names(output), iter_shards(output, ["error"]), strict=True)
    rejected = {name for name, table in tables if table["error"].null_count < len(table)}
    return replace(output, retry=frozenset(rejected))


def recorded_spec(folder: Folder, settings: InferenceSettings, kind: str) -> BaseSpec | None:
    """The base spec of the output that `folder` holds and the job goes on with, if any.

    Raises:
        FlowerrayError: it holds something else.
    """
    before = None if settings.overwrite else _record_to_go_on_with(folder, kind)
    return BaseSpec.from_dict(before["config"]["base_spec"]) if before else None


def with_base_spec(output: Output, spec: BaseSpec) -> Output:
    """`output` with `spec` in its record; no shard may be there yet."""
    return with_record(output, config={**output.run["config"], "base_spec": asdict(spec)})


def with_record(output: Output, **entries: Any) -> Output:
    """`output` with these `entries` in its record."""
    run = {**output.run, **entries}
    output.folder.write("run.json", json.dumps(run, indent=2).encode())
    return replace(output, run=run)


def read_output(directory: str, kind: str) -> Output:
    """The output of an earlier job of `kind`.

    Raises:
        FlowerrayError: `directory` holds none.
    """
    folder = Folder.at(directory)
    run = _record_in(folder, kind)
    if run is None:
        there = kind_in(folder)
        found = f"{directory} holds {there}, no {kind}" if there else f"no {kind} in {directory}"
        raise FlowerrayError(f"{found}: give the --out of `{MADE_BY[kind]}`")
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


def write_shard(output: Output, shard: Shard, table: pa.Table) -> None:
    """Commit `table` as `shard`."""
    about = {**(table.schema.metadata or {}), **output.metadata(shard)}
    with output.folder.create(f"shards/{shard.name}") as stream:
        pq.write_table(
            table.replace_schema_metadata(about),
            stream,
            compression="zstd",
            write_page_checksum=True,
        )


def read_shard(output: Output, shard: Shard) -> pa.Table | None:
    """The committed `shard`; None where it is not there yet.

    Raises:
        FlowerrayError: it can't be read.
    """
    with _faults_told(output, shard.name):
        try:
            file = output.folder.open(f"shards/{shard.name}")
        except FileNotFoundError:
            return None
        return pq.read_table(file)


def read_table(output: Output, columns: Sequence[str]) -> pa.Table:
    """`columns` of all committed shards, in order of image_id.

    Raises:
        FlowerrayError: there is none yet.
    """
    tables = list(iter_shards(output, columns))
    if not tables:
        raise FlowerrayError(f"{output.folder} has no shard yet: run its job again to finish it")
    return pa.concat_tables(tables)


def iter_shards(output: Output, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The committed shards one by one, in order, some being read ahead: as many as fit in
    BYTES_READ_AHEAD, by the largest so far.

    Raises:
        FlowerrayError: one can't be read.
    """
    return _tables(output, _shard_names(output), columns)


def _tables(
    output: Output, names: Iterable[str], columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        ahead: deque[Future[pa.Table]] = deque()
        largest, most = 1, 0
        for name in names:
            ahead.append(pool.submit(_read, output, name, columns))
            while len(ahead) > most:
                table = ahead.popleft().result()
                largest = max(largest, table.nbytes)
                most = min(READS_IN_FLIGHT, BYTES_READ_AHEAD // largest)
                yield table
        while ahead:
            yield ahead.popleft().result()


def _read(output: Output, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    with _faults_told(output, name):
        return pq.read_table(output.folder.open(f"shards/{name}", columns), columns=columns)


@contextmanager
def _faults_told(output: Output, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise FlowerrayError(
            f"{output.folder.file(f'shards/{name}')} can't be read "
            f"({str(error).partition(chr(10))[0]}): if `flowerray verify {output.folder}` calls it "
            "damaged, remove it and run its job again"
        ) from None


def rejects(output: Output, but: Iterable[Shard] = ()) -> Counter[str]:
    """How many photographs were rejected, by reason, in all shards `but` some."""
    counts: Counter[str] = Counter()
    names = set(_shard_names(output)) - {shard.name for shard in but}
    for table in _tables(output, sorted(names), ["error"]):
        counts.update(counted(table["error"]))
    return counts


# What helps where all photographs were rejected, most of them for this reason.
MENDS = {
    "missing": "see that they are where they were listed",
    "unreadable": "see that they may be read (error_detail says why not)",
    "changed": "let no other write them meanwhile",
    "too_large": "give a larger --max-megapixels or --max-megabytes",
}
RETRY = ", then --retry-rejected takes them"


def check_some_used(photographs: int, rejected: Mapping[str, int], retry: str = "") -> None:
    """
    Raises:
        FlowerrayError: all of the `photographs` were `rejected`, counted by reason, most first;
            `retry` says how a job tries them again.
    """
    if photographs and sum(rejected.values()) >= photographs:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
        mend = MENDS.get(next(iter(rejected)))
        mend = f"{mend}{retry}" if mend else "give photographs in formats that it reads"
        raise FlowerrayError(
            f"none of the {photographs:,} photographs could be used: {counts}; {mend}"
        )


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value of `column` is in it, nulls aside."""
    found = pc.value_counts(column.drop_null()).to_pylist()
    return {one["values"]: one["counts"] for one in found}


def error_columns(outcomes: Sequence[np.ndarray | Rejected]) -> list[pa.Array]:
    """The `error` and `error_detail` of a shard's rows."""
    bad = [outcome if isinstance(outcome, Rejected) else None for outcome in outcomes]
    return [
        pa.array([b.reason if b else None for b in bad], pa.string()),
        pa.array([b.detail if b else None for b in bad], pa.string()),
    ]


def _shard_names(output: Output) -> list[str]:
    return _our_names(output.folder, "shards")


def _record_to_go_on_with(folder: Folder, kind: str) -> dict[str, Any] | None:
    """The record in `folder`; None where nothing is that writing there could harm."""
    run = _record_in(folder, kind)
    lease.check_ours(folder, kind, recorded=run is not None)
    if run is None and _our_names(folder, "shards"):
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


def _check_config(folder: Folder, before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    recorded = {**before["config"]}
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
