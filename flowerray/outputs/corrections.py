"""corrections.parquet: what people said of the photographs of an output, kept beside its labels."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import Output
from flowerray.sources import uris
from flowerray.sources.answers import ANSWERS, merged
from flowerray.stores.folder import Folder

CORRECTIONS = "corrections.parquet"


def kept(folder: Folder) -> pa.Table:
    """What is kept in `folder`, ANSWERS; no row where nobody said anything."""
    try:
        return pq.read_table(io.BytesIO(folder.read(CORRECTIONS)), schema=ANSWERS)
    except FileNotFoundError:
        return ANSWERS.empty_table()
    except (OSError, pa.ArrowException) as error:
        raise FlowerrayError(f"{folder.file(CORRECTIONS)} can't be read: {error}") from None


def keep(output: Output, said: pa.Table, of: str) -> pa.Table:
    """Add what people `said` (ANSWERS, read from `of`) of photographs of `output` to what is kept
    there; the newest answer for a photograph holds. Returns all of it.

    Raises:
        FlowerrayError: they said nothing of these photographs.
    """
    said = said.filter(pc.is_valid(said["label"]))
    ours = _as_listed(output, said)
    if len(said) and not len(ours):
        raise FlowerrayError(
            f"none of the {len(said):,} photographs of {of} is in {output.folder}, such as "
            f"{said['uri'][0].as_py()}: is it of another pile?"
        )
    before = kept(output.folder)
    whole = merged([before, ours])
    if not whole.equals(before):
        with output.folder.create(CORRECTIONS) as stream:
            pq.write_table(whole, stream)
    return whole


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
