"""review.parquet: the labels that were not accepted, the least sure first, of any number of rows.

DuckDB sorts them on the local disk. Class names are numbers there: each row has its label's name
and those of its top_k, and names may be long.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.errors import FlowerrayError
from flowerray.outputs.derived import REVIEW
from flowerray.outputs.schemas import LABELS
from flowerray.stores.folder import Folder

COLUMNS = ["image_id", "uri", "label", "confidence", "top_k", "novelty", "accepted"]
SCHEMA = pa.schema(
    [*(LABELS.field(name) for name in COLUMNS[:-1]), pa.field("reason", pa.string())]
)
MEMORY_LIMIT = "256MB"  # of DuckDB; what is beyond lies on the disk
ROWS_A_GROUP = 1 << 20
BYTES_A_GROUP = 128 << 20  # of rows as they wait for their group to be full
BYTES_A_BATCH = 8 << 20  # of names in rows that are taken from DuckDB together


class ReviewQueue:
    """Takes label shards one by one, and writes those of their rows that are to be reviewed."""

    def __init__(self, database: Any, classes: list[str], top_k: int) -> None:
        self._database, self._classes = database, pa.array(classes, pa.string())
        longest = max(len(name.encode()) for name in classes)
        self._rows_a_batch = max(1, min(65536, BYTES_A_BATCH // (longest * (1 + top_k))))
        database.execute("SET enable_progress_bar = false")  # it would go to stdout, amid --json
        database.execute(
            "CREATE TABLE review (image_id BIGINT, uri VARCHAR, label INTEGER, confidence FLOAT, "
            "top_labels INTEGER[], top_probabilities FLOAT[], novelty FLOAT)"
        )

    def add(self, table: pa.Table) -> None:
        """Take the rows of `table`, which has COLUMNS, that were labelled and not accepted; what
        people decided is either accepted or none of the classes."""
        waiting = pc.and_(pc.equal(table["accepted"], False), pc.is_valid(table["label"]))
        table = table.filter(waiting)
        if not len(table):
            return
        top = table["top_k"].combine_chunks()
        names, probabilities = top.flatten().flatten()
        columns = {
            "image_id": table["image_id"],
            "uri": table["uri"],
            "label": self._numbers(table["label"]),
            "confidence": table["confidence"],
            "top_labels": pa.ListArray.from_arrays(_offsets(top), self._numbers(names)),
            "top_probabilities": pa.ListArray.from_arrays(_offsets(top), probabilities),
            "novelty": table["novelty"],
        }
        self._database.register("rows", pa.table(columns))
        self._database.execute("INSERT INTO review SELECT * FROM rows")
        self._database.unregister("rows")

    def write(self, folder: Folder) -> None:
        """Write review.parquet in `folder`; rows of equal confidence are in order of image_id."""
        ordered = self._database.sql("SELECT * FROM review ORDER BY confidence, image_id")
        batches = ordered.to_arrow_reader(self._rows_a_batch)
        with (
            folder.create(REVIEW) as stream,
            pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer,
        ):
            for group in _groups(self._named(batch) for batch in batches):
                writer.write_table(group, ROWS_A_GROUP)

    def _numbers(self, names: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        return pc.index_in(names, value_set=self._classes)

    def _named(self, batch: pa.RecordBatch) -> pa.Table:
        tops = batch["top_labels"]
        pairs = pa.StructArray.from_arrays(
            [self._classes.take(tops.flatten()), batch["top_probabilities"].flatten()],
            fields=list(SCHEMA.field("top_k").type.value_type),
        )
        columns = [
            batch["image_id"],
            batch["uri"].cast(pa.string()),
            self._classes.take(batch["label"]),
            batch["confidence"],
            pa.ListArray.from_arrays(_offsets(tops), pairs, SCHEMA.field("top_k").type),
            batch["novelty"],
            pc.if_else(pc.greater(batch["novelty"], 1), "novel", "unsure"),
        ]
        return pa.table(columns, schema=SCHEMA)


@contextmanager
def review_queue(classes: list[str], top_k: int) -> Iterator[ReviewQueue]:
    """A queue for the length of the block, with a passing database in the temporary directory.

    Raises:
        FlowerrayError: there is no room for it.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="flowerray-review-") as directory:
        settings: Any = {"memory_limit": MEMORY_LIMIT, "temp_directory": directory, "threads": 2}
        try:
            with duckdb.connect(os.path.join(directory, "review.db"), config=settings) as database:
                yield ReviewQueue(database, classes, top_k)
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            raise FlowerrayError(
                f"can't sort {REVIEW} in {directory} ({reason}): make room there or set "
                "TMPDIR to another directory, then run the same command again"
            ) from None


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Where each of `lists` begins in its flattened values, and where the last one ends."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.array([0, *lengths.cumsum()], pa.int32())


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """`tables` put together, as many rows as a row group may have."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if waiting and (rows + len(table) > ROWS_A_GROUP or size > BYTES_A_GROUP):
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(table)
        rows, size = rows + len(table), size + table.nbytes
    if waiting:
        yield pa.concat_tables(waiting)
