"""flowerray extract with a clock at each step of its start: prints seconds a step, as JSON.

python benchmarks/startup_steps.py PHOTOGRAPHS OUT UNIX-TIME-OF-THE-COMMAND
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flowerray.bases.prepared import PreparedBase
from flowerray.commands.extract import extract
from flowerray.pipeline import connection
from flowerray.pipeline.features import FeatureWork
from flowerray.settings import ExtractSettings


class TimedWork(FeatureWork):
    """Notes when an actor began to load the model, and when it had."""

    notes = ""

    def __init__(self, mirror: bool) -> None:
        super().__init__(mirror)
        self.directory = TimedWork.notes

    def open(self, base: PreparedBase, threads: int) -> Any:
        began = time.time()
        engine = super().open(base, threads)
        Path(self.directory, f"{began} {time.time()}").touch()
        return engine


def main(images: str, out: str, commanded: str) -> None:
    marks = [float(commanded), time.time()]
    connect = connection._connect

    def timed_connect(*settings: str | None) -> None:
        marks.append(time.time())
        connect(*settings)
        marks.append(time.time())

    connection._connect = timed_connect
    sys.modules["flowerray.commands.extract"].FeatureWork = TimedWork  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as TimedWork.notes:
        extract(ExtractSettings(images=images, out=out, shard_size=8))
        first = min(file.name for file in Path(TimedWork.notes).iterdir())
    marks += map(float, first.split())
    marks.append(min(file.stat().st_mtime for file in Path(out, "shards").iterdir()))
    steps = (
        "importing flowerray",
        "listing, weights, importing Ray",
        "`ray.init()`",
        "Ray Data, until an actor's class runs",
        "importing the engine and loading the model",
        "first batch of 8, from reading to its committed shard",
    )
    took = (after - before for before, after in itertools.pairwise(marks))
    print(json.dumps(dict(zip(steps, took, strict=True))))


main(*sys.argv[1:])
