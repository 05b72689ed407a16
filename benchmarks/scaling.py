"""What a job costs on paper, from 1 million to 10 billion photographs, out of what is measured.

    python benchmarks/scaling.py PHOTOGRAPHS --work DIR [--only ...]

PHOTOGRAPHS is a directory of photographs such as would be labelled; only their sizes are read.
Everything that one process does for the whole job is measured on synthetic rows and shards, each
probe in a process of its own, and kept in DIR/measured.json. The model multiplies it, and the rates
of docs/benchmarks.md, up. Prints Markdown, and puts each section into its place in docs/scaling.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import machine, peak_megabytes

from flowerray.bases.spec import BaseSpec
from flowerray.commands.accept import Counts
from flowerray.commands.verify import verify
from flowerray.outputs import shards
from flowerray.outputs.manifest import (
    ROWS_A_GROUP,
    ROWS_A_PART,
    Listing,
    Manifest,
    Shard,
    rows_of,
    write_listing,
)
from flowerray.outputs.record import Output, read_any_output
from flowerray.outputs.review import COLUMNS, review_queue
from flowerray.outputs.schemas import LABELS
from flowerray.pipeline import connection
from flowerray.pipeline.plan import planned
from flowerray.settings import ExtractSettings
from flowerray.sources.listing import FOUND, photographs_to_label
from flowerray.sources.photographs import Limits, read_and_decode
from flowerray.stores.folder import Folder

DOCUMENTS = Path(__file__).parent.parent / "docs"
SHARD = 512  # photographs in a shard of a large job
SHARDS_A_TASK = 8  # as inference.py hands them to Ray Data
SIZES = {"1 M": 10**6, "100 M": 10**8, "10 B": 10**10}
CORES_A_NODE = 16
NODES = (1, 8, 64, 512)  # of CORES_A_NODE
MEMORY = 16e9  # bytes that a driver may have
ROWS_LISTED = (1_000_000, 8_000_000)
SHARDS_PLANNED = (100_000, 1_000_000, 10_000_000)
SHARDS_COUNTED = (1_000, 4_000)
ITEMS_GIVEN = (5_000, 50_000)
ITEMS_DONE = 400
FILES = 200_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.probe:
        name, number = chosen.probe
        told = PROBES[name](chosen.work, int(number))
        print(json.dumps({**told, "megabytes": peak_megabytes("self")}))
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    measured = Measured(chosen.photographs, chosen.work)
    document = DOCUMENTS / "scaling.md"
    for name in chosen.only:
        part = "\n".join(SECTIONS[name](measured)) + "\n"
        print(part, flush=True)
        place = re.compile(f"(?<=<!-- {name} -->\n).*(?=<!-- end of {name} -->)", re.DOTALL)
        document.write_text(place.sub(lambda _, part=part: part, document.read_text()))


class Measured:
    """Figures of probes, each measured once and kept in the work directory."""

    def __init__(self, photographs: Path, work: Path) -> None:
        self.photographs, self.work, self.file = photographs, work, work / "measured.json"
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}

    def __call__(self, probe: str, number: int) -> dict[str, Any]:
        """What `probe` tells of `number`, run in a process of its own."""
        key = f"{probe} {number}"
        if key not in self.known:
            command = [sys.executable, __file__, self.photographs, "--work", self.work]
            done = subprocess.run(
                [*map(str, command), "--probe", probe, str(number)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            self.known[key] = json.loads(done.stdout.splitlines()[-1])
            print(f"{key}: {self.known[key]}", file=sys.stderr, flush=True)
            self.file.write_text(json.dumps(self.known, indent=2))
        return self.known[key]


# Probes: each is run alone in a process, so that its peak of memory is its own.


def probe_listing(work: Path, rows: int) -> dict[str, Any]:
    """Rows into a manifest, the making of the synthetic rows not counted."""
    making = 0.0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal making
        chance = np.random.default_rng(0)
        for start in range(0, rows, ROWS_A_GROUP):
            began = time.perf_counter()
            batch = synthetic_rows(start, min(ROWS_A_GROUP, rows - start), chance)
            making += time.perf_counter() - began
            yield batch

    folder = Folder.at(work / f"listing-{rows}")
    began = time.perf_counter()
    listing = write_listing(batches(), folder, "manifest", SHARD)
    seconds = time.perf_counter() - began - making
    assert listing.rows == rows
    files = list(Path(folder.file("manifest")).iterdir())
    about = pq.read_metadata(max(files))
    return {
        "seconds": seconds,
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
        "group_bytes": about.row_group(0).total_byte_size,
        "footer_bytes": about.serialized_size,
    }


def synthetic_rows(start: int, count: int, chance: np.random.Generator) -> pa.RecordBatch:
    """As a bucket's listing would give them: a thousand a directory, names that say nothing."""
    numbers = np.arange(start, start + count)
    names = [f"{n:016x}" for n in chance.integers(0, 1 << 62, count)]
    uris = [f"/data/{n // 1000:08d}/{name}.jpg" for n, name in zip(numbers, names, strict=True)]
    sizes = chance.integers(30_000, 80_000, count)
    nothing = pa.nulls(count, pa.string())
    return pa.record_batch([pa.array(uris), nothing, nothing, pa.array(sizes)], FOUND)


def probe_walk(work: Path, files: int) -> dict[str, Any]:
    """Names and sizes of real files, a thousand a directory."""
    pile = work / "pile"
    for number in range(files // 1000):
        directory = pile / f"{number:05d}"
        directory.mkdir(parents=True, exist_ok=True)
        for i in range(1000):
            (directory / f"{i:04d}.jpg").touch()
    began = time.perf_counter()
    found = sum(len(batch) for batch in photographs_to_label(str(pile)))
    assert found == files
    return {"seconds": time.perf_counter() - began}


def probe_plan(work: Path, count: int) -> dict[str, Any]:
    """What the driver holds of `count` shards, none of them done: as inference.run has it."""
    output = Output(Folder.at(work / "nothing"), manifest_of(count), {})
    began = time.perf_counter()
    to_do = output.to_do()
    planned = time.perf_counter()
    tasks = [to_do[i : i + SHARDS_A_TASK] for i in range(0, len(to_do), SHARDS_A_TASK)]
    items = [
        {"first_rows": [s.first_row for s in task], "rows": [s.rows for s in task]}
        for task in tasks
    ]
    assert len(items) == -(-count // SHARDS_A_TASK)
    return {"seconds": planned - began, "items_seconds": time.perf_counter() - planned}


def manifest_of(count: int) -> Manifest:
    return Manifest((Listing(0, count * SHARD, SHARD, "0" * 32),))


def probe_names(work: Path, files: int) -> dict[str, Any]:
    """The same command again when all is done: the shards' names, and what is missing of them."""
    output = Output(Folder.at(work / "many"), manifest_of(files), {})
    directory = Path(output.folder.file("shards"))
    if not directory.exists():
        directory.mkdir(parents=True)
        for shard in output.manifest.shards():
            (directory / shard.name).touch()
    began = time.perf_counter()
    there = output.folder.names("shards")
    named = time.perf_counter()
    assert len(there) == files and output.missing() == []
    return {"seconds": named - began, "missing_seconds": time.perf_counter() - named}


def probe_rows(work: Path, rows: int) -> dict[str, Any]:
    """An actor's read of the manifest rows of one shard, from what `probe_listing` wrote."""
    folder, count = Folder.at(work / f"listing-{rows}"), min(300, rows // SHARD)
    manifest = manifest_of(rows // SHARD)
    chosen = random.Random(0).sample(range(rows // SHARD), count)
    began = time.perf_counter()
    for number in chosen:
        assert len(rows_of(folder, manifest, Shard(number * SHARD, SHARD))) == SHARD
    return {"seconds": (time.perf_counter() - began) / count}


def probe_given(work: Path, items: int) -> dict[str, Any]:
    """Items handed over to Ray Data, a block each as inference.py does it."""
    with connection.connection(None):
        began = time.perf_counter()
        dataset = given(items)
        seconds = time.perf_counter() - began
        assert dataset.num_blocks() == items
    return {"seconds": seconds}


def probe_ray(work: Path, items: int) -> dict[str, Any]:
    """Ray Data over items that cost nothing, fed and read as inference.py does it."""
    import ray

    with connection.connection(None):
        plan = planned(ExtractSettings(images="-", out="-"))
        mapped = given(items).map_batches(
            Nothing,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=plan.actors, initial_size=plan.actors
            ),
            num_cpus=plan.groups[-1].cpus,
        )
        reports = iter(mapped.iter_rows())
        next(reports)
        began, computed = time.perf_counter(), time.process_time()
        count = 1 + sum(1 for _ in reports)
        seconds, cpu = time.perf_counter() - began, time.process_time() - computed
    assert count == items * SHARDS_A_TASK
    return {"seconds": seconds, "cpu": cpu}


def given(items: int) -> Any:
    """A dataset of `items`."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1
    tasks = [{"first_rows": [0] * SHARDS_A_TASK, "rows": [0] * SHARDS_A_TASK}] * items
    return ray.data.from_items(tasks, override_num_blocks=items)


class Nothing:
    """An actor that reports its shards without doing them."""

    def __call__(self, task: dict[str, np.ndarray]) -> Iterator[dict[str, list[Any]]]:
        for _ in task["first_rows"][0]:
            yield {"photographs": [0], "computed": [0], "redone": [0], "rejected": [0]}


def labelled(work: Path, count: int) -> Output:
    """An output of `count` label shards of random labels, a third of them not accepted."""
    about = {
        "kind": "labels",
        "config": {"classes": ["rose", "sunflower", "tulip"], "top_k": 3},
        "flowerray_version": "-",
    }
    output = Output(Folder.at(work / f"labels-{count}"), manifest_of(count), about)
    if output.folder.exists("run.json"):
        return output
    chance = np.random.default_rng(0)
    classes = np.array(["rose", "sunflower", "tulip"])
    listed = [synthetic_rows(row, SHARD, chance) for row in range(0, count * SHARD, SHARD)]
    listing = write_listing(iter(listed), output.folder, "manifest", SHARD)
    output = Output(output.folder, Manifest((listing,)), about)
    for shard, rows in zip(output.manifest.shards(), listed, strict=True):
        probabilities = chance.dirichlet((0.3, 0.3, 0.3), SHARD).astype(np.float32)
        order = np.argsort(-probabilities, axis=1)
        ranked = np.take_along_axis(probabilities, order, axis=1)
        wrong = chance.random(SHARD) < 0.001
        pairs = pa.StructArray.from_arrays(
            [pa.array(classes[order.ravel()].tolist()), pa.array(ranked.ravel())],
            fields=list(LABELS.field("top_k").type.value_type),
        )
        ends = pa.array(np.arange(0, 3 * SHARD + 1, 3, dtype=np.int32))
        columns = [
            pa.array(np.arange(shard.first_row, shard.first_row + SHARD)),
            rows["uri"],
            pa.array(classes[order[:, 0]].tolist(), pa.string(), mask=wrong),
            pa.array(ranked[:, 0], mask=wrong),
            pa.ListArray.from_arrays(ends, pairs),
            pa.array(chance.random(SHARD).astype(np.float32), mask=wrong),
            pa.array(chance.random(SHARD) > 1 / 3, mask=wrong),
            pa.array(["classifier"] * SHARD, pa.string(), mask=wrong),
            *(
                pa.nulls(SHARD, LABELS.field(n).type)
                for n in ("unlabelled", "probabilities", "rest")
            ),
            pa.array(["missing"] * SHARD, pa.string(), mask=~wrong),
            pa.nulls(SHARD, pa.string()),
        ]
        shards.write_shard(output, shard, pa.table(columns, schema=LABELS))
    run = {**about, "manifest": output.manifest.as_dict()}
    output.folder.write("run.json", json.dumps(run).encode())
    return output


def probe_shards(work: Path, count: int) -> dict[str, Any]:
    """Label shards as they lie."""
    files = Path(labelled(work, count).folder.file("shards")).iterdir()
    return {"bytes": sum(file.stat().st_size for file in files)}


def last_pass(do: Callable[[Output], Any]) -> Callable[[Path, int], dict[str, Any]]:
    """A probe of what is done of all shards at a job's end."""

    def probe(work: Path, count: int) -> dict[str, Any]:
        output = read_any_output(str(work / f"labels-{count}"))
        began = time.perf_counter()
        do(output)
        return {"seconds": time.perf_counter() - began}

    return probe


def count_labels(output: Output) -> None:
    counts = Counts()
    for table in shards.iter_shards(output, ["label", "error", "novelty", "accepted"]):
        counts.add(table)


def write_review(output: Output) -> None:
    config = output.run["config"]
    with review_queue(config["classes"], config["top_k"]) as queue:
        for table in shards.iter_shards(output, COLUMNS):
            queue.add(table)
        queue.write(output.folder)


PROBES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "listing": probe_listing,
    "walk": probe_walk,
    "plan": probe_plan,
    "names": probe_names,
    "rows": probe_rows,
    "given": probe_given,
    "ray": probe_ray,
    "shards": probe_shards,
    "counted": last_pass(count_labels),
    "rejects": last_pass(shards.rejects),
    "review": last_pass(write_review),
    "verify": last_pass(lambda output: verify(str(output.folder))),
}


# Sections of docs/scaling.md.


def stamp() -> str:
    return f"{machine()}, {datetime.date.today()}."


def listing(measured: Measured) -> list[str]:
    """Photographs into a manifest."""
    lines = [
        stamp(),
        "",
        "| rows listed into a manifest | rows a second | bytes a row | driver's memory, MB |",
        "|---|---|---|---|",
    ]
    for rows in ROWS_LISTED:
        found = measured("listing", rows)
        lines.append(
            f"| {rows:,} | {rows / found['seconds']:,.0f} | {found['bytes'] / rows:.1f} | "
            f"{found['megabytes']:.0f} |"
        )
    last = measured("listing", ROWS_LISTED[-1])
    walk = FILES / measured("walk", FILES)["seconds"]
    read = measured("rows", ROWS_LISTED[-1])["seconds"]
    return [
        *lines,
        "",
        f"Finding {FILES:,} files and their sizes on the local disk: {walk:,.0f} a second. An "
        f"actor's read of the manifest rows of one shard: {1000 * read:.1f} ms, "
        f"{last['group_bytes'] / 1e3:,.0f} KB of a file's {ROWS_A_GROUP:,}-row group and "
        f"{last['footer_bytes'] / 1e3:,.0f} KB of its footer, once a shard.",
    ]


def planning(measured: Measured) -> list[str]:
    """What the driver holds of shards."""
    lines = [
        stamp(),
        "",
        "| shards to do | photographs | list them, s | make the items for Ray Data, s | driver's "
        "memory, MB |",
        "|---|---|---|---|---|",
    ]
    for count in SHARDS_PLANNED:
        found = measured("plan", count)
        lines.append(
            f"| {count:,} | {count * SHARD / 1e6:,.0f} M | {found['seconds']:.2f} | "
            f"{found['items_seconds']:.2f} | {found['megabytes']:,.0f} |"
        )
    names = measured("names", FILES)
    return [
        *lines,
        "",
        f"Of {FILES:,} shards that are all done, the names are read in {names['seconds']:.2f} s "
        f"and nothing found missing in another {names['missing_seconds']:.2f} s.",
    ]


def ray_data(measured: Measured) -> list[str]:
    """Ray Data's own cost."""
    lines = [
        stamp(),
        "",
        f"| items of {SHARDS_A_TASK} shards handed over | s | driver's memory, MB |",
        "|---|---|---|",
    ]
    for items in ITEMS_GIVEN:
        found = measured("given", items)
        lines.append(f"| {items:,} | {found['seconds']:.1f} | {found['megabytes']:,.0f} |")
    done = measured("ray", ITEMS_DONE)
    shards_done = ITEMS_DONE * SHARDS_A_TASK
    return [
        *lines,
        "",
        f"{ITEMS_DONE:,} items through two actors that do nothing: {shards_done:,} shards reported "
        f"in {done['seconds']:.1f} s, {shards_done / done['seconds']:,.0f} a second. The driver "
        f"computes {1000 * done['cpu'] / shards_done:.1f} ms for each; the rest is waiting, "
        f"so that an actor is bounded to {SHARD * shards_done / done['seconds'] / 2:,.0f} "
        f"photographs a second by it, in shards of {SHARD}.",
    ]


def last_passes(measured: Measured) -> list[str]:
    """What one process does of all shards when the last is there."""
    first, last = SHARDS_COUNTED
    shard = [measured("shards", count)["bytes"] / count for count in SHARDS_COUNTED][-1]
    million = last * SHARD / 1e6
    lines = [
        stamp(),
        "",
        f"| over {last:,} label shards, {million:.2f} M photographs | s | memory, MB | memory over "
        f"{first:,} shards, MB |",
        "|---|---|---|---|",
    ]
    for what, probe in LAST_PASSES.items():
        found = measured(probe, last)
        less = measured(probe, first)["megabytes"]
        lines.append(
            f"| {what} | {found['seconds']:.1f} | {found['megabytes']:,.0f} | {less:,.0f} |"
        )
    return [
        *lines,
        "",
        f"A label shard is {shard / 1e3:.1f} KB, {shard / SHARD:.0f} bytes a photograph.",
    ]


LAST_PASSES = {
    "count labels": "counted",
    "count rejects": "rejects",
    "write `review.parquet`, a third of all in it": "review",
    "`flowerray verify`": "verify",
}


def benchmarked(pattern: str) -> float:
    """The figure that docs/benchmarks.md gives where `pattern` finds it."""
    found = re.search(pattern, (DOCUMENTS / "benchmarks.md").read_text())
    assert found, f"docs/benchmarks.md has no {pattern}"
    return float(found[1].replace(",", ""))


def paper(measured: Measured) -> list[str]:
    """The cost of a whole job, for each of SIZES."""
    sizes = [f.stat().st_size for f in measured.photographs.rglob("*") if f.is_file()]
    each = sum(sizes) / len(sizes)
    row = r"\*\*flowerray\*\*{} \| ([\d.]+)"
    rates = {
        "int8": benchmarked(row.format(" `--precision int8`")) / 2,
        "bfloat16": benchmarked(row.format(", default")) / 2,
        "float32": benchmarked(row.format(" `--precision float32`")) / 2,
    }
    listed = measured("listing", ROWS_LISTED[-1])["bytes"] / ROWS_LISTED[-1]
    written = {
        "labels": measured("shards", SHARDS_COUNTED[-1])["bytes"] / SHARDS_COUNTED[-1] / SHARD,
        "or embeddings": benchmarked(r"embedding, 512, float16 \| ([\d,]+)"),
        "or features, `--pool none`, 7x7x512,": benchmarked(r"7x7x512, float16 \| ([\d,]+)"),
    }
    rows: dict[str, Callable[[int], str]] = {
        **{
            f"hours of one core, {name}, {rate:.1f} photographs a second": (
                lambda n, rate=rate: f"{n / rate / 3600:,.0f}"
            )
            for name, rate in rates.items()
        },
        **{
            f"on {nodes * CORES_A_NODE:,} cores, bfloat16": (
                lambda n, nodes=nodes: duration(n / rates["bfloat16"] / nodes / CORES_A_NODE)
            )
            for nodes in NODES
        },
        f"photographs read, {each / 1e3:.1f} KB each": lambda n: size(n * each),
        f"manifest, {listed:.1f} bytes each": lambda n: size(n * listed),
        **{
            f"{what} written, {one:,.0f} bytes each": lambda n, one=one: size(n * one)
            for what, one in written.items()
        },
        "files of the manifest": lambda n: f"{-(-n // ROWS_A_PART):,}",
        f"shards of {SHARD}": lambda n: f"{-(-n // SHARD):,}",
        f"items for Ray Data, of {SHARDS_A_TASK} shards": lambda n: (
            f"{-(-n // (SHARD * SHARDS_A_TASK)):,}"
        ),
    }
    node = CORES_A_NODE * each / 1e6
    handled = ITEMS_DONE * SHARDS_A_TASK * SHARD / measured("ray", ITEMS_DONE)["cpu"]
    decoded = decoded_a_second(measured.photographs)
    return [
        f"{stamp()} Photographs as the {len(sizes):,} measured: {each / 1e3:.1f} KB in the mean.",
        "",
        *table("photographs", rows),
        "",
        f"While it computes, a node of {CORES_A_NODE} cores reads {node * rates['bfloat16']:.0f} "
        f"MB a second at bfloat16, {node * rates['int8']:.0f} at int8. The driver can "
        f"hear of {handled:,.0f} photographs a second, by its computing for Ray Data: what "
        f"{handled / rates['bfloat16']:,.0f} cores do at bfloat16. A core "
        f"reads and decodes {decoded:,.0f} photographs a second to VGG16's size, if it does "
        "nothing else.",
    ]


def decoded_a_second(photographs: Path) -> float:
    """By one thread, at the size that VGG16 takes."""
    files = sorted(file for file in photographs.rglob("*") if file.is_file())
    chosen = [str(file) for file in random.Random(0).sample(files, min(400, len(files)))]
    spec = BaseSpec("vgg16", None, 224, "vgg", "bilinear-dct", "", "", "", "")
    began = time.perf_counter()
    for file in chosen:
        read_and_decode(file, None, spec, Limits())
    return len(chosen) / (time.perf_counter() - began)


def driver(measured: Measured) -> list[str]:
    """What one process does of the whole job, and where it is too much for it."""
    costs = driver_costs(measured)
    rows: dict[str, Callable[[int], str]] = {
        what: lambda n, s=seconds, b=held: duration(n * s) + (f", {size(n * b)}" if b else "")
        for what, (seconds, held) in costs.items()
    }
    lines = table("what one process does: time, memory", rows)
    for i, (seconds, held) in enumerate(costs.values(), start=2):
        full = photographs(MEMORY / held) if held else ""
        lines[i] += f" {photographs(3600 / seconds)} | {full} |"
    lines[0] += f" an hour is for | {MEMORY / 1e9:.0f} GB are for |"
    lines[1] += "---|---|"
    return [stamp(), "", *lines]


def driver_costs(measured: Measured) -> dict[str, tuple[float, float]]:
    """Seconds and bytes of memory that each photograph costs one process."""
    item = SHARD * SHARDS_A_TASK
    planned, named = measured("plan", SHARDS_PLANNED[-1]), measured("names", FILES)
    listed, given = measured("listing", ROWS_LISTED[-1]), measured("given", ITEMS_GIVEN[-1])
    known = (named["seconds"] + named["missing_seconds"]) / FILES / SHARD
    planned_seconds = (planned["seconds"] + planned["items_seconds"]) / SHARDS_PLANNED[-1] / SHARD

    def grown(probe: str, numbers: tuple[int, ...], photographs: int) -> float:
        first, last = (measured(probe, number)["megabytes"] for number in (numbers[0], numbers[-1]))
        return max(0.0, last - first) * 1e6 / (numbers[-1] - numbers[0]) / photographs

    count = SHARDS_COUNTED[-1] * SHARD
    return {
        "find files on a local disk": (measured("walk", FILES)["seconds"] / FILES, 0.0),
        "write the manifest": (listed["seconds"] / ROWS_LISTED[-1], 0.0),
        "see which shards are done": (known, 0.0),
        "list the shards to do, as items": (planned_seconds, grown("plan", SHARDS_PLANNED, SHARD)),
        "hand the items to Ray Data": (
            given["seconds"] / ITEMS_GIVEN[-1] / item,
            grown("given", ITEMS_GIVEN, item),
        ),
        **{
            what: (measured(probe, SHARDS_COUNTED[-1])["seconds"] / count, held)
            for what, probe in LAST_PASSES.items()
            for held in [grown(probe, SHARDS_COUNTED, SHARD)]
        },
    }


def table(first: str, rows: dict[str, Callable[[int], str]]) -> list[str]:
    """Each row of what and how much, for each of SIZES."""
    return [
        f"| {first} | {' | '.join(SIZES)} |",
        f"|---|{'---|' * len(SIZES)}",
        *(f"| {what} | {' | '.join(map(of, SIZES.values()))} |" for what, of in rows.items()),
    ]


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def photographs(count: float) -> str:
    return f"{count / 1e6:,.0f} M" if count < 2e9 else f"{count / 1e9:,.0f} B"


def size(count: float) -> str:
    unit, one = next(((u, b) for u, b in UNITS if count >= b), UNITS[-1])
    return f"{count / one:,.{1 if count < 100 * one else 0}f} {unit}"


UNITS = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6))

SECTIONS: dict[str, Callable[[Measured], list[str]]] = {
    "listing": listing,
    "planning": planning,
    "ray_data": ray_data,
    "last_passes": last_passes,
    "paper": paper,
    "driver": driver,
}

if __name__ == "__main__":
    main()
