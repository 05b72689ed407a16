"""All columns of label shards as one table."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from flowerray.exports.file import own_file
from flowerray.exports.rows import Exported
from flowerray.outputs.derived import LABEL_FILES, TABLE_WRITERS
from flowerray.outputs.record import Output
from flowerray.settings import ExportSettings


def write(
    out: str, tables: Iterable[pa.Table], output: Output, settings: ExportSettings
) -> Exported:
    """Rejected photographs have their rows too."""
    with own_file(out, settings.format, LABEL_FILES[settings.format]) as stream:
        return Exported(TABLE_WRITERS[settings.format](tables, stream))
