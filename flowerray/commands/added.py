"""Features of photographs that corrections bring and the features lack, kept in the classifier."""

from __future__ import annotations

from dataclasses import asdict, replace

import pyarrow as pa

from flowerray.bases.spec import BaseSpec
from flowerray.commands.extract import Like, extract_listed
from flowerray.errors import FlowerrayError
from flowerray.heads.classifier import ADDED
from flowerray.outputs import shards
from flowerray.outputs.manifest import fingerprint_of, rows_of
from flowerray.outputs.record import Output, read_output, writing
from flowerray.outputs.schemas import features_schema
from flowerray.outputs.setup import open_output
from flowerray.outputs.stored import StoredFeatures
from flowerray.progress import say
from flowerray.settings import ExtractSettings, TrainSettings
from flowerray.sources.answers import Corrections
from flowerray.sources.listing import FOUND
from flowerray.stores.folder import Folder


def with_features(
    output: Output,
    corrections: Corrections,
    stored: StoredFeatures | None,
    settings: TrainSettings,
) -> Output | None:
    """Features, made as `output`'s are and kept in the classifier, of the photographs in
    `corrections` that `output` lacks; None where it has all. They are those `stored` of a pile,
    where it has all of them, or computed. `output` itself is only read.

    Raises:
        FlowerrayError: as ``flowerray.extract``.
    """
    there = set(shards.read_table(output, ["uri"])["uri"].to_pylist())
    new = {u: name for u, name in corrections.items() if name is not None and u not in there}
    if not new:
        return None
    spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
    rows = {"uri": list(new), "label": list(new.values()), "split": ["train"] * len(new)}
    found = pa.table({**rows, "size": [None] * len(new)}).cast(FOUND)
    out = Folder.at(settings.out).file(ADDED)
    extraction = ExtractSettings(
        images=str(settings.corrections),
        out=out,
        base=spec.base,
        augment=output.run["config"].get("augment"),
        weights="random" if spec.weights == "random" else settings.weights,
        address=settings.address,
        endpoint_url=settings.endpoint_url,
        anonymous=settings.anonymous,
        allow_redirects=settings.allow_redirects,
    )
    # Of an earlier training with other corrections nothing is of use.
    stale = not _is_of(out, found, output)
    extraction = replace(extraction, overwrite=stale)
    if stored is not None and not extraction.augment and all(uri in stored for uri in new):
        return _copied(stored, found, extraction)
    like = Like(spec, output.folder)
    done = extract_listed(extraction, found.to_batches(), like)
    if done.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in done.rejected.items())
        say(
            f"{settings.corrections}: of {len(new):,} photographs that are new, rejected: {reasons}"
        )
    return read_output(out, "features")


def _is_of(out: str, found: pa.Table, like: Output) -> bool:
    """Whether `out` holds features of just the photographs `found`, made as those of `like`."""
    try:
        before = read_output(out, "features")
    except FlowerrayError:
        return False
    same = before.run["config"] == like.run["config"]
    return same and before.manifest.fingerprint == fingerprint_of(found)


def _copied(stored: StoredFeatures, found: pa.Table, extraction: ExtractSettings) -> Output:
    """An output as the `extraction` of the photographs `found` would leave it, of what is stored
    of them."""
    config = {"base_spec": asdict(stored.spec)}
    with writing(extraction, "features") as folder:
        output = open_output(folder, extraction, "features", config, found.to_batches())
        for shard in output.to_do():
            rows = rows_of(folder, output.manifest, shard)
            there = stored.of("", rows["uri"])
            columns = [rows[name] for name in ("image_id", "uri", "label", "split")]
            columns += [there[name] for name in ("features", "error", "error_detail")]
            schema = features_schema(there["features"].type.list_size)
            schema = schema.with_metadata(there.schema.metadata)
            shards.write_shard(output, shard, pa.table(columns, schema=schema))
    return read_output(extraction.out, "features")
