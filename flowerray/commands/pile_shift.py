"""Whether a pile looks like the evidence that its labels' precision is promised from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.heads import classifier
from flowerray.outputs import shards
from flowerray.outputs.manifest import Shard
from flowerray.outputs.record import Output
from flowerray.outputs.stored import StoredFeatures
from flowerray.trust.shift import MOST, Difference, Look, differences

SHARDS = 64  # that photographs are drawn from; neighbours in a shard may be of one scene


def pile_shift(output: Output, stored: StoredFeatures, seed: int = 0) -> list[Difference]:
    """How the photographs that `output` labels differ from the evidence kept with them, by some of
    each; nothing where the evidence has no embeddings."""
    evidence = classifier.evidence(str(output.folder))
    evidence = evidence.filter(pc.is_valid(evidence["embedding"]))
    if not len(evidence):
        return []
    classes = pa.array(output.run["config"]["classes"])
    one = Look(
        _rows(evidence["embedding"].combine_chunks().flatten(), len(evidence)),
        evidence["confidence"].to_numpy(),
        evidence["novelty"].to_numpy(),
        pc.index_in(evidence["prediction"], classes).to_numpy(),
    )
    chance = np.random.default_rng(seed)
    everything = output.manifest.shards()
    some = chance.permutation(len(everything))[:SHARDS]
    looks = [_look(output, stored, everything[i], classes, chance) for i in sorted(some)]
    other = Look(*(np.concatenate(column) for column in zip(*looks, strict=True)))
    return differences(one, other, seed)


def _look(
    output: Output,
    stored: StoredFeatures,
    shard: Shard,
    classes: pa.Array,
    chance: np.random.Generator,
) -> tuple[np.ndarray, ...]:
    """Of a few of a shard's photographs what is compared, as `Look` has it."""
    table = shards.read_shard(output, shard)
    assert table is not None
    features, there = stored.values(stored.of(shard.name, table["uri"]))
    table = table.filter(pa.array(there))
    few = np.sort(chance.permutation(len(table))[: max(1, 4 * MOST // SHARDS)])
    table = table.take(pa.array(few))
    # The classifier's own answers: what people said is of their own choice.
    first = pc.list_element(table["top_k"].combine_chunks(), 0)
    return (
        features[few].astype(np.float32),
        pc.struct_field(first, "probability").to_numpy(zero_copy_only=False),
        table["novelty"].to_numpy(),
        pc.index_in(pc.struct_field(first, "label"), classes).to_numpy(zero_copy_only=False),
    )


def _rows(values: pa.Array, rows: int) -> np.ndarray:
    return values.to_numpy().reshape(rows, -1).astype(np.float32)
