"""Whether commands end with the code that they mean, every time: those of `make demo`, and
`evaluate` with a truth.

    python benchmarks/exits.py --work DIR [--demos 30] [--evaluations 200]

Prints a Markdown table, and of each command that ended otherwise the last of what it said.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from measure import machine


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--demos", type=int, default=30)
    options.add_argument("--evaluations", type=int, default=200)
    chosen = options.parse_args()
    work = chosen.work / "exits"
    sample, results = work / "sample", work / "results"
    truth = sample / "truth.csv"
    fetch = ("weights", "fetch")
    draw = ("sample", sample)
    run = ("run", sample / "labelled", sample / "pile", "--out", results, "--truth", truth)
    demos: Counter[int] = Counter()
    for _ in range(chosen.demos):
        shutil.rmtree(work, ignore_errors=True)
        codes = [code_of(*command) for command in (fetch, draw, run)]
        demos[next((code for code in codes if code), 0)] += 1
    evaluate = ("evaluate", results / "labels", "--truth", truth)
    evaluations = Counter(code_of(*evaluate) for _ in range(chosen.evaluations))
    print(f"{machine()}, {datetime.date.today()}.\n")
    print("| what | times | exit codes |")
    print("|---|---|---|")
    for what, counts in (("the commands of `make demo`", demos), ("`evaluate`", evaluations)):
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(counts.items()))
        print(f"| {what} | {counts.total()} | {codes} |")
    return 0 if set(demos) | set(evaluations) <= {0} else 1


def code_of(*command: object) -> int:
    """The exit code of a `flowerray` command; what it said goes to stderr where it isn't 0."""
    call = [sys.executable, "-m", "flowerray.cli", *map(str, command)]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace")
    if done.returncode:
        print(f"{' '.join(call)}: {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
