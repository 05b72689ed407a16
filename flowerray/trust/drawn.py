"""audit.parquet, beside labels: which of the accepted ones were drawn for people to judge."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError
from flowerray.outputs import shards
from flowerray.outputs.derived import SAMPLE, accepted_labels
from flowerray.outputs.record import Output
from flowerray.trust import audit
from flowerray.trust.acceptance import HUMAN
from flowerray.trust.audit import Sample


def accepted_of(output: Output) -> pa.Table:
    """The accepted labels that nobody decided: image_id, uri, label, confidence."""
    columns = ["image_id", "uri", "label", "confidence", "accepted", "source"]
    tables = []
    for table in shards.iter_shards(output, columns):
        mine = pc.fill_null(table["accepted"], False)
        if "source" in table.column_names:
            mine = pc.and_(mine, pc.not_equal(table["source"], HUMAN))
        tables.append(table.filter(mine).select(columns[:4]))
    return pa.concat_tables(tables)


def draw(output: Output, accepted: pa.Table, number: int, seed: int) -> list[str]:
    """Draw about `number` of the `accepted` labels, keep which beside the labels, and return their
    uris in order of image_id. Who calls it holds the output's lease."""
    classes = pc.index_in(accepted["label"], pa.array(output.classes)).to_numpy()
    sample = audit.draw(classes, accepted["confidence"].to_numpy(), number, seed)
    drawn = np.zeros(len(accepted), bool)
    drawn[sample.places] = True
    kept = accepted.take(pa.array(sample.order)).append_column("drawn", pa.array(drawn))
    uris_of_drawn = pc.if_else(kept["drawn"], kept["uri"], pa.scalar(None, pa.string()))
    kept = kept.set_column(kept.column_names.index("uri"), "uri", uris_of_drawn)
    about = {
        "size": str(sample.size),
        "each": str(sample.each),
        "classes": json.dumps(output.classes),
        "of": accepted_labels(output.run),
    }
    with output.folder.create(SAMPLE) as stream:
        pq.write_table(kept.replace_schema_metadata(about), stream, compression="zstd")
    return kept.filter(kept["drawn"]).sort_by("image_id")["uri"].to_pylist()


def read(output: Output) -> tuple[pa.Table, Sample, list[str]]:
    """The sample that was drawn last: its table, itself, the classes."""
    try:
        kept = pq.read_table(output.folder.open(SAMPLE))
        about = {key.decode(): value.decode() for key, value in kept.schema.metadata.items()}
        names = json.loads(about["classes"])
        size, each = int(about["size"]), int(about["each"])
    except FileNotFoundError:
        raise FlowerrayError(
            f"no sample of {output.folder} was drawn: `flowerray audit {output.folder} "
            "--number 300` draws one to judge"
        ) from None
    except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        raise FlowerrayError(f"{output.folder.file(SAMPLE)} can't be read: {error}") from None
    counts = np.bincount(
        pc.index_in(kept["label"], pa.array(names)).to_numpy(), minlength=len(names)
    )
    sample = Sample(
        kept["image_id"].to_numpy(),
        np.concatenate([[0], np.cumsum(counts)]),
        kept["confidence"].to_numpy(),
        np.flatnonzero(kept["drawn"].to_numpy(zero_copy_only=False)),
        size,
        each,
    )
    return kept, sample, names
