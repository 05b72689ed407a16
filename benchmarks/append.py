"""What `--append` of 1,000 photographs takes beside a manifest that is large already.

    python benchmarks/append.py --work DIR [--rows 1000000 2000000 4000000]

The manifest is written without photographs or shards; measured is the comparison of the new listing
with it, in a process of its own each. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import machine, peak_megabytes

from flowerray.outputs import comparison
from flowerray.outputs.manifest import ROWS_A_GROUP, Manifest, write_listing
from flowerray.sources.listing import FOUND
from flowerray.stores.folder import Folder

NEW = 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000, 4_000_000])
    options.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        print(measured(Folder.at(chosen.work / f"append-{chosen.one}"), chosen.one))
        return
    print(f"{machine()}, {datetime.date.today()}.\n")
    print("| rows before | seconds | process' memory at its most, MB |")
    print("|---|---|---|")
    for rows in chosen.rows:
        command = [sys.executable, __file__, "--work", str(chosen.work), "--one", str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(done.stdout.strip(), flush=True)


def measured(folder: Folder, rows: int) -> str:
    listing = write_listing(photographs(rows), folder, "manifest", None)
    write_listing(photographs(rows + NEW), folder, "new", None)
    started = time.perf_counter()
    with comparison.compared(folder, Manifest((listing,)), "new", by_split=False) as found:
        retired, _ = found.retired()
        assert not len(retired) and sum(len(batch) for batch in found.new()) == NEW
    seconds = time.perf_counter() - started
    megabytes = peak_megabytes("self")
    return f"| {rows:,} | {seconds:.1f} | {megabytes:.0f} |"


def photographs(rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, ROWS_A_GROUP):
        numbers = np.arange(start, min(rows, start + ROWS_A_GROUP))
        uris = [f"/photographs/{n // 1000:06d}/{n:09d}.jpg" for n in numbers]
        nothing = [pa.nulls(len(uris), field.type) for field in list(FOUND)[1:]]
        yield pa.record_batch([pa.array(uris), *nothing], FOUND)


if __name__ == "__main__":
    main()
