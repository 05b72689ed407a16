"""What people said of the photographs of an output, kept beside its labels: corrections.parquet.

A review adds to it without rewriting it: each answer is a small file of its own in corrections/,
which is never changed, so that no kill and no other writer can lose one. They are put together now
and then, and `keep` takes them into the table. An answer without a label takes back the one before.
"""

from __future__ import annotations

import io
import time
import uuid
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError
from flowerray.outputs import shards
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import Output
from flowerray.sources import uris
from flowerray.sources.answers import ANSWERS, Applied, merged
from flowerray.stores.folder import Folder

CORRECTIONS, ADDED = "corrections.parquet", "corrections"
READERS = 16  # of small files, which a store answers one by one


def kept(folder: Folder) -> pa.Table:
    """What is kept in `folder`, ANSWERS; no row where nobody said anything."""
    return _kept(folder)[0]


def keep(output: Output, said: pa.Table | None = None, of: str = "") -> pa.Table:
    """Add what people `said` (ANSWERS, read from `of`) of photographs of `output` to what is kept
    there, and take in what a review added; the newest answer for a photograph holds. Returns all of
    it. Who calls it holds the output's lease.

    Raises:
        FlowerrayError: they said nothing of these photographs.
    """
    said = ANSWERS.empty_table() if said is None else said.filter(pc.is_valid(said["label"]))
    ours = _as_listed(output, said)
    if len(said) and not len(ours):
        raise FlowerrayError(
            f"none of the {len(said):,} photographs of {of} is in {output.folder}, such as "
            f"{said['uri'][0].as_py()}: is it of another pile?"
        )
    before, added = _kept(output.folder)
    whole = merged([before, ours])
    if added or not whole.equals(before):
        with output.folder.create(CORRECTIONS) as stream:
            pq.write_table(whole, stream)
        output.folder.remove_files(ADDED, added)
    return whole


def add(folder: Folder, said: pa.Table) -> str:
    """Add answers, ANSWERS; they are there when this returns, under the name returned. The uris are
    those of the photographs as they are listed."""
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
    with folder.create(f"{ADDED}/{name}") as stream:
        pq.write_table(said, stream)
    return name


def put_together(folder: Folder, names: Collection[str]) -> list[str]:
    """Make one of the files that `add` wrote under `names`: its name, or nothing where they were
    taken in by another meanwhile."""
    tables = [_read(folder, f"{ADDED}/{name}") for name in sorted(names)]
    there = [table for table in tables if table is not None]
    together = [add(folder, pa.concat_tables(there))] if there else []
    folder.remove_files(ADDED, names)
    return together


def _kept(folder: Folder) -> tuple[pa.Table, set[str]]:
    """What is kept in `folder`, and the names of the files that a review added to it."""
    while True:
        added = {name for name in folder.names(ADDED) if name.endswith(".parquet")}
        names = [*(f"{ADDED}/{name}" for name in sorted(added)), CORRECTIONS]
        with ThreadPoolExecutor(READERS) as pool:
            *new, table = pool.map(lambda name: _read(folder, name), names)
        # Else they were put together, or taken in, meanwhile.
        if all(one is not None for one in new):
            whole = merged([*([] if table is None else [table]), *new])
            return whole.filter(pc.is_valid(whole["label"])), added


def _read(folder: Folder, name: str) -> pa.Table | None:
    """None where it is not there."""
    try:
        return pq.read_table(io.BytesIO(folder.read(name)), schema=ANSWERS)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise FlowerrayError(f"{folder.file(name)} can't be read: {error}") from None


def applied(output: Output, said: pa.Table, whole: pa.Table) -> Applied:
    """What became of what people `said`, ANSWERS, where `whole` is what `keep` returned of it."""
    table = shards.read_table(output, ["uri", "error"])
    unread = set(map(uris.key, table.filter(pc.is_valid(table["error"]))["uri"].to_pylist()))
    holds = {
        uris.key(uri): label
        for uri, label in zip(whole["uri"].to_pylist(), whole["label"].to_pylist(), strict=True)
    }
    became: Counter[str] = Counter()
    for uri, label in zip(said["uri"].to_pylist(), said["label"].to_pylist(), strict=True):
        key = uris.key(uri)
        if label is None:
            became["without a label"] += 1
        elif key not in holds:
            became["of photographs that are not in these labels"] += 1
        elif holds[key] != label:
            became["older than another answer"] += 1
        elif key in unread:
            became["of photographs that can't be read"] += 1
    return Applied(len(said) - became.total(), dict(became.most_common()))


def listed_in(output: Output, named: pa.Array) -> pa.Array:
    """Which of the uris `named` (m,) are of photographs of `output`: bool (m,)."""
    found: set[str] = set()
    for shard in output.manifest.shards():
        rows = rows_of(output.folder, output.manifest, shard)["uri"]
        found.update(rows.filter(pc.is_in(rows, value_set=named)).to_pylist())
    return pa.array([uri in found for uri in named.to_pylist()], pa.bool_())


def _as_listed(output: Output, said: pa.Table) -> pa.Table:
    """The rows of `said` whose photograph `output` has, by the uri that it is listed under there,
    however it is spelled in `said`."""
    if not len(said):
        return said
    by_uri = dict.fromkeys(said["uri"].to_pylist())
    by_key = {uris.key(uri): uri for uri in by_uri}
    listed: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for shard in output.manifest.shards():
        rows = rows_of(output.folder, output.manifest, shard)["uri"]
        exact = pc.is_in(rows, value_set=said["uri"].combine_chunks())
        listed.update((uri, uri) for uri in rows.filter(exact).to_pylist())
        if len(listed) < len(by_uri):
            for uri in rows.to_pylist():
                if (written := by_key.get(uris.key(uri))) is not None:
                    spelled.setdefault(written, uri)
    named = [listed.get(uri, spelled.get(uri)) for uri in said["uri"].to_pylist()]
    found = said.set_column(0, "uri", pa.array(named, pa.string()))
    return found.filter(pc.is_valid(found["uri"]))
