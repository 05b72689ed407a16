"""Stored features to label shards, in this process: no photograph is read, no Ray is started."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from flowerray.bases import hardware
from flowerray.bases.prepared import Head
from flowerray.heads.dense import one_thread
from flowerray.outputs.manifest import Shard, rows_of
from flowerray.outputs.record import Output
from flowerray.outputs.shards import counted, write_shard
from flowerray.outputs.stored import StoredFeatures
from flowerray.pipeline.inference import Timing
from flowerray.pipeline.labels import LabelWork
from flowerray.progress import Progress
from flowerray.sources.photographs import Rejected


def run(output: Output, stored: StoredFeatures, work: LabelWork) -> tuple[Timing, Counter[str]]:
    """Do every shard of `output` that is to do, as ``flowerray.pipeline.inference.run`` does."""
    to_do = output.to_do()
    rows = sum(shard.rows for shard in to_do)
    progress = Progress("label", output.manifest.rows, max(0, output.manifest.rows - rows))
    rejects: Counter[str] = Counter()
    if not to_do:
        return Timing(0, 0, *progress.finish(), 0), rejects
    # A dense head computes in one thread, so several shards at once; another takes all.
    threads = hardware.available_cpus()
    at_once = threads + 1 if work.head.dense is not None else 1
    head = work.head.open(threads)
    progress.ready(0)
    waiting: deque[Future[tuple[int, dict[str, int]]]] = deque()
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="label")
    with one_thread():
        try:
            for shard in to_do:
                waiting.append(pool.submit(_labelled, output, stored, work, head, shard))
                if len(waiting) > 2 * at_once:
                    _told(progress, rejects, waiting.popleft().result())
            while waiting:
                _told(progress, rejects, waiting.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)
    return Timing(rows, 0, *progress.finish(), 1), rejects


def _labelled(
    output: Output, stored: StoredFeatures, work: LabelWork, head: Head, shard: Shard
) -> tuple[int, dict[str, int]]:
    """Commit a shard: how many photographs it has, and why some were rejected."""
    rows = rows_of(output.folder, output.manifest, shard)
    found = stored.of(shard.name, rows["uri"])
    features, there = stored.values(found)
    outcomes: list[Any] = [None] * len(rows)
    for row, result in zip(np.flatnonzero(there), head(features), strict=True):
        outcomes[row] = result
    errors = found.select(["error", "error_detail"])
    for row in np.flatnonzero(~there):
        outcomes[row] = Rejected(*(errors[name][int(row)].as_py() for name in errors.column_names))
    write_shard(output, shard, work.table(rows, outcomes))
    return len(rows), counted(errors["error"])


def _told(progress: Progress, rejects: Counter[str], done: tuple[int, dict[str, int]]) -> None:
    photographs, rejected = done
    progress.add(photographs, sum(rejected.values()))
    rejects.update(rejected)
