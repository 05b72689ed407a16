"""Labels for other tools: tables, tasks of Label Studio, a FiftyOne dataset, a folder a class.

Every format is written shard by shard, so memory stays that of one shard for any number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

import pyarrow as pa
import pyarrow.compute as pc

from flowerray.errors import FlowerrayError
from flowerray.exports import FORMATS
from flowerray.exports.rows import Exported
from flowerray.outputs import shards
from flowerray.outputs.record import Output, read_output
from flowerray.progress import Progress
from flowerray.settings import ExportSettings
from flowerray.stores.folder import located


@dataclass(frozen=True)
class ExportSummary:
    """What an export holds: `photographs`; `left_out` are those without a label or not asked for,
    `unreadable` those that could not be copied. `labelling_configuration` is the XML of the Label
    Studio project that the tasks are for."""

    out: str
    format: str
    photographs: int
    left_out: int
    unreadable: int = 0
    labelling_configuration: str | None = None

    @property
    def whole(self) -> bool:
        """Every photograph that should be in the export is."""
        return not self.unreadable


def export(settings: ExportSettings) -> ExportSummary:
    """Write the labels in ``settings.labels`` as another tool reads them.

    Raises:
        FlowerrayError: no labels, or not yet all of them; no verdicts where those accepted are
            asked for; something else in ``settings.out``; photographs that the format can't name.
    """
    output = read_output(settings.labels, "labels")
    output.check_whole()
    out = located(settings.out)
    progress = Progress("export", output.manifest.rows)
    progress.ready(0)
    tables = _chosen(output, settings, progress)
    writer = import_module(f"flowerray.exports.{FORMATS[settings.format]}")
    exported: Exported = writer.write(out, tables, output, settings)
    progress.finish()
    return ExportSummary(
        out,
        settings.format,
        exported.photographs,
        output.manifest.rows - exported.photographs - exported.unreadable,
        exported.unreadable,
        exported.labelling_configuration,
    )


def _chosen(output: Output, settings: ExportSettings, progress: Progress) -> Iterator[pa.Table]:
    """The rows that are asked for, a table a shard."""
    for table in shards.iter_shards(output):
        progress.add(len(table), 0)
        if settings.accepted_only or settings.min_confidence is not None:
            table = table.filter(pc.is_valid(table["label"]))
        if settings.min_confidence is not None:
            least = pa.scalar(settings.min_confidence, pa.float32())  # as the shards have it
            table = table.filter(pc.greater_equal(table["confidence"], least))
        if settings.accepted_only:
            table = table.filter(_accepted(table, output))
        yield table


def _accepted(table: pa.Table, output: Output) -> pa.ChunkedArray:
    if "accepted" not in table.column_names or table["accepted"].null_count:
        raise FlowerrayError(
            f"{output.folder} does not say which labels are accepted: label into another --out "
            "with --min-precision or --min-confidence, or leave --accepted-only out"
        )
    return table["accepted"]
