"""Whether an output is whole: every manifest row once, every shard readable and of this run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from flowerray.outputs.manifest import Shard, rows_of
from flowerray.outputs.record import Output, read_any_output
from flowerray.progress import Progress


@dataclass
class Verdict:
    """Rows by what became of them, and the shard files that are not as they should be.

    `expected` is what the manifest lists; `rejected` counts by reason among the `present`.
    """

    out: str
    expected: int
    present: int = 0
    missing: int = 0
    doubled: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Every row is there once, and nothing else."""
        return not (self.missing or self.doubled or self.damaged or self.foreign)


def verify(out: str) -> Verdict:
    """Check the output of extract or label against its manifest, reading every shard whole.

    Raises:
        FlowerrayError: there is no such output.
    """
    output = read_any_output(out)
    verdict = Verdict(str(output.folder), output.manifest.rows)
    expected = {shard.name: shard for shard in output.manifest.shards()}
    rejected: Counter[str] = Counter()
    progress = Progress("verify", verdict.expected)
    progress.ready(0)
    for name in sorted(output.folder.names("shards")):
        if name not in expected:
            verdict.foreign.append(f"shards/{name}")
            continue
        _check_shard(output, expected[name], verdict, rejected)
        progress.add(expected[name].rows)
    progress.finish()
    verdict.missing = verdict.expected - verdict.present
    verdict.rejected = dict(rejected.most_common())
    return verdict


def _check_shard(output: Output, shard: Shard, verdict: Verdict, rejected: Counter[str]) -> None:
    name = f"shards/{shard.name}"
    try:
        table = pq.read_table(output.folder.open(name), page_checksum_verification=True)
        about = json.loads(table.schema.metadata[b"flowerray"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        verdict.damaged.append(name)
        return
    if about != json.loads(output.metadata(shard)["flowerray"]):
        verdict.foreign.append(name)
        return
    ids = Counter(table["image_id"].to_pylist())
    rows = rows_of(output.folder, output.manifest, shard)
    wanted = dict(zip(rows["image_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
    found = dict(zip(table["image_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    if not found.items() <= wanted.items():
        verdict.foreign.append(name)
        return
    verdict.present += len(ids)
    verdict.doubled += sum(ids.values()) - len(ids)
    rejected.update(reason for reason in table["error"].to_pylist() if reason is not None)
