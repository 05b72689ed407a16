"""The second round: a pile's stored embeddings labelled again, and accepted again.

    python benchmarks/loop.py CLASSIFIER [--embeddings 1000000] [--photographs DIR] [--work DIR]

CLASSIFIER is what `flowerray train` made on embeddings. Made-up embeddings of its shape are written
as an extraction leaves them; then `flowerray label FEATURES` and `flowerray accept` run as users
run them. With --photographs the same classifier labels these too, for the ratio. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import machine, watch
from stored import store

from flowerray.heads import classifier
from flowerray.sources.listing import FOUND


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("classifier")
    options.add_argument("--embeddings", type=int, default=1_000_000)
    options.add_argument("--photographs", help="label these, too")
    options.add_argument("--work", type=Path)
    chosen = options.parse_args()
    work = chosen.work or Path(tempfile.mkdtemp(prefix="loop-"))
    features = made_up(work / "features", chosen.classifier, chosen.embeddings)
    count = chosen.embeddings
    rows = []
    again = watch("label", features, "--classifier", chosen.classifier, "--out", work / "labels")
    rows.append((f"label {count:,} stored embeddings", again, count / again.seconds))
    for wanted in ("--min-precision 0.97", "--min-confidence 0.9"):
        done = watch("accept", work / "labels", *wanted.split())
        rows.append((f"accept them, {wanted}", done, count / done.seconds))
    if chosen.photographs:
        shutil.rmtree(work / "small", ignore_errors=True)
        first = watch(
            *("label", chosen.photographs, "--classifier", chosen.classifier),
            *("--out", work / "small"),
        )
        computed = first.told["computed"] / first.told["seconds"]
        name = f"label {first.told['computed']:,} photographs, without start-up"
        rows.append((name, first, computed))
    print(f"{machine()}, {datetime.date.today()}.\n")
    print("| | seconds | photographs a second | MB of its process |\n|---|---|---|---|")
    for name, done, rate in rows:
        print(f"| {name} | {done.seconds:.1f} | {rate:,.0f} | {done.driver_megabytes:,.0f} |")
    if chosen.photographs:
        print(f"\nFrom stored embeddings {rows[0][2] / computed:,.0f} times as many a second.")


def made_up(directory: Path, of: str, count: int) -> Path:
    """An output of `count` embeddings of unit length, near those that the classifier's centres
    stand for."""
    trained = classifier.load(of)
    assert trained.dense is not None, f"{of} is no classifier on embeddings"
    centres, chance = trained.dense.centres, np.random.default_rng(0)
    names = (f"/pile/{number:09d}.jpg" for number in range(count))

    def found():
        for start in range(0, count, 65536):
            uris = [next(names) for _ in range(min(65536, count - start))]
            nothing = [None] * len(uris)
            yield pa.RecordBatch.from_pydict(
                {"uri": uris, "label": nothing, "split": nothing, "size": nothing}, FOUND
            )

    def embeddings(first: int, number: int) -> np.ndarray:
        near = centres[chance.integers(0, len(centres), number)]
        rows = near + chance.normal(0, 0.03, near.shape).astype(np.float32)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    return store(directory, trained.base_spec, found(), embeddings)


if __name__ == "__main__":
    main()
