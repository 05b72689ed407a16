"""What stays within bounds of memory and reads, however many photographs there are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PEAK_MEMORY

from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.outputs.review import SCHEMA
from flowerray.outputs.schemas import LABELS
from flowerray.pipeline.labels import LabelWork
from flowerray.pipeline.stages import ReadAhead
from flowerray.settings import ExtractSettings, LabelSettings
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder
from flowerray.trust.acceptance import Acceptance, Decision


@pytest.fixture
def opened(monkeypatch):
    """How often this process has opened each shard to read it, by its name."""
    counts: Counter[str] = Counter()
    real = Folder.open

    def counting(folder, name, *arguments, **named):
        if name.startswith("shards/"):
            counts[name] += 1
        return real(folder, name, *arguments, **named)

    monkeypatch.setattr(Folder, "open", counting)
    return counts


def test_a_queue_of_more_than_two_gib_of_labels_is_written_in_order(tmp_path):
    script = f"""
import numpy as np, pyarrow as pa
from flowerray.outputs.review import review_queue
from flowerray.stores.folder import Folder

classes = [f"{{i}}-" + "x" * (1 << 16) for i in range(3)]
chance = np.random.default_rng(0)
rows = 500
with review_queue(classes, 2) as queue:
    for first in range(0, 40_000, rows):
        best = chance.integers(0, 3, rows)
        names = pa.array(classes)
        label = names.take(pa.array(best))
        pairs = pa.StructArray.from_arrays(
            [names.take(pa.array(np.stack((best, (best + 1) % 3), 1).ravel())),
             pa.array(np.tile(np.array([0.5, 0.25], np.float32), rows))],
            names=["label", "probability"])
        top = pa.ListArray.from_arrays(pa.array(range(0, 2 * rows + 1, 2), pa.int32()), pairs)
        queue.add(pa.table({{
            "image_id": range(first, first + rows),
            "uri": [f"/pile/{{i}}.jpg" for i in range(first, first + rows)],
            "label": label,
            "confidence": pa.array(chance.integers(0, 50, rows) / 100, pa.float32()),
            "top_k": top,
            "novelty": pa.array([0.5] * rows, pa.float32()),
            "accepted": [False] * rows}}))
    queue.write(Folder({str(tmp_path)!r}))
print({PEAK_MEMORY})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1_000_000  # KiB; nothing else is on stdout
    file = pq.ParquetFile(tmp_path / "review.parquet")
    assert file.schema_arrow.equals(SCHEMA)
    keys = file.read(["confidence", "image_id"])
    assert keys.equals(keys.sort_by([("confidence", "ascending"), ("image_id", "ascending")]))
    assert sorted(keys["image_id"].to_pylist()) == list(range(40_000))
    in_all = 0
    for batch in file.iter_batches(500, columns=["label", "top_k"]):
        in_all += batch["label"].nbytes
        first = batch["top_k"].flatten().field("label").take(pa.array(range(0, 2 * len(batch), 2)))
        assert first.equals(batch["label"])
    assert in_all > 1 << 31


def test_each_shard_is_read_once_by_the_driver_of_a_labelling(sample, fast, tmp_path, opened):
    asked = {
        "images": str(sample.pile),
        "classifier": str(fast / "classifier"),
        "out": str(tmp_path / "labels"),
        "shard_size": 8,
        "min_precision": 0.5,
        "format": "csv",
        "gallery": str(tmp_path / "gallery.png"),
    }
    for again in range(3):
        opened.clear()
        done = label(LabelSettings(**asked))
        names = sorted((tmp_path / "labels" / "shards").iterdir())
        # To count them and to write what is made of all; before that, to decide what is new.
        times = 1 if again == 2 else 2
        assert opened == {f"shards/{name.name}": times for name in names}
        assert sum(done.labels.values()) + sum(done.rejected.values()) == done.photographs
        if again == 0:  # go on where a killed run was
            names[1].unlink()
            (tmp_path / "labels" / "review.parquet").unlink()


def test_an_extraction_reads_those_features_alone_that_an_earlier_one_left(
    sample, local_ray, tmp_path, opened
):
    images = shutil.copytree(sample.labelled, tmp_path / "images")
    rose = sorted((images / "rose").iterdir())
    rose[1].write_bytes(b"no photograph")
    rose[8].write_bytes(b"")
    out = tmp_path / "features"
    settings = ExtractSettings(images=str(images), out=str(out), base="thumbnail", shard_size=8)
    done = extract(settings)
    assert not opened and done.rejected == {"not_an_image": 1, "empty": 1}
    names = sorted(f"shards/{file.name}" for file in (out / "shards").iterdir())
    (out / names[0]).unlink()
    assert extract(settings).rejected == done.rejected
    assert opened == dict.fromkeys(names[1:], 1)
    opened.clear()
    again = extract(settings)
    assert again.rejected == done.rejected and again.computed == 0
    assert opened == dict.fromkeys(names, 1)


def test_a_shard_of_labels_is_what_python_would_make_of_each_row():
    classes = [f"class {i}" for i in range(7)]
    chance = np.random.default_rng(1)
    outcomes = [
        Rejected("empty", "0 bytes") if i % 5 == 0 else chance.random(8, np.float32) * 1.1
        for i in range(40)
    ]
    outcomes[1][:7] = 0.5  # ties are in the order of classes
    thresholds = {name: {"threshold": None if i == 3 else 0.9} for i, name in enumerate(classes)}
    work = LabelWork.__new__(LabelWork)
    work.classes, work.top_k, work.none_class = classes, 3, None
    nobody = pa.array([], pa.string())
    decide = Decision(Acceptance(None, 0.9, thresholds), nobody, nobody, None)
    rows = pa.table({"image_id": range(40), "uri": [f"{i}.jpg" for i in range(40)]})
    made = work.table(rows, outcomes)
    table = decide(made)
    assert made.schema.equals(LABELS) and table.schema.equals(LABELS)
    assert table.drop_columns("accepted").equals(made.drop_columns("accepted"))
    for row, outcome in zip(table.to_pylist(), outcomes, strict=True):
        if isinstance(outcome, Rejected):
            assert row["error"] == "empty" and row["label"] is row["top_k"] is None
            assert row["accepted"] is row["novelty"] is None
            continue
        best = sorted(range(7), key=lambda i: -outcome[i])[:3]
        assert [t["label"] for t in row["top_k"]] == [classes[i] for i in best]
        assert [t["probability"] for t in row["top_k"]] == [outcome[i] for i in best]
        assert (row["label"], row["confidence"]) == (classes[best[0]], outcome[best[0]])
        sure = best[0] != 3 and outcome[best[0]] >= np.float32(0.9)
        assert row["accepted"] == (sure and outcome[-1] <= 1)
    assert work.table(rows, outcomes)["accepted"].null_count == 40
    assert len(work.table(rows[:1], outcomes[:1])) == 1  # nothing but rejected ones


def test_no_more_shards_are_read_ahead_than_fit(sample, fast, tmp_path, monkeypatch):
    settings = LabelSettings(
        images=str(sample.pile),
        classifier=str(fast / "classifier"),
        out=str(tmp_path / "labels"),
        shard_size=4,
    )
    label(settings)
    output = read_output(str(tmp_path / "labels"), "labels")
    whole = shards.read_table(output, ["image_id", "label"])
    monkeypatch.setattr(shards, "BYTES_READ_AHEAD", 1)
    assert shards.read_table(output, ["image_id", "label"]).equals(whole)


@pytest.mark.parametrize(("size", "listed"), [(1000, True), (100 << 20, True), (100 << 20, False)])
def test_files_that_are_read_ahead_are_bounded_by_their_bytes(size, listed, tmp_path, monkeypatch):
    reading = ReadAhead(None, Limits(), threads=1, ahead=50)
    waiting = most = 0

    def submitted(one):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        reading._fetched_bytes, reading._fetched = size, 1  # as the store says of the first
        done = Future()
        done.set_result(one.uri)
        return done

    monkeypatch.setattr(reading, "_submitted", submitted)
    uris = [str(i) for i in range(200)]
    of_each = size if listed else None
    photographs = [SimpleNamespace(uri=uri, size=of_each, isolate=False) for uri in uris]
    seen = []
    for uri in reading.decoded(photographs):
        waiting -= 1
        seen.append(uri)
    assert seen == uris
    assert most == (51 if size == 1000 else 3)
