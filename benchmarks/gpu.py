"""What a card and the cores beside it make of a base, and how busy the pipeline keeps it.

    python benchmarks/gpu.py PHOTOGRAPHS [--base vgg16] [--weights random] [--engine keras]
        [--precisions float32,bfloat16,float16] [--batches 32,64,128,256] [--workers 1,2,4,8]
        [--seconds 5] [--repeat 4] [--json FILE]

Needs no Ray and no network: flowerray, Keras with a backend (KERAS_BACKEND=torch, jax or
tensorflow) and a directory of some hundred photographs. It runs on CPUs as well. Prints Markdown,
and with --json one object a measurement; rates are photographs a second.

1. forward: the engine alone, from uint8 pixels to results, both in memory, by precision and batch
2. decode: a file's bytes to pixels, by threads and by processes
3. pipeline: the stages of an actor in this process, from files to shards' tables as Parquet, for
   extract and for label; where its time goes, and what share of the two limits it reaches
"""

from __future__ import annotations

import argparse
import datetime
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import machine

from flowerray.bases import hardware, weights
from flowerray.bases.engines import Engine, openvino
from flowerray.bases.prepared import PreparedBase
from flowerray.bases.spec import PREPARATIONS, BaseSpec, base_named
from flowerray.heads.dense_head import DenseHead
from flowerray.heads.prepared import PreparedHead
from flowerray.outputs.manifest import MANIFEST
from flowerray.pipeline.actor import Work
from flowerray.pipeline.features import FeatureWork
from flowerray.pipeline.labels import LabelWork
from flowerray.pipeline.stages import Listed, Outcome, ReadAhead, computed
from flowerray.sources import photographs
from flowerray.sources.listing import photographs_to_label
from flowerray.sources.photographs import Limits, Rejected

CLASSES = [f"class {number}" for number in range(5)]
SHARD = 512
Told = dict[str, Any]


@dataclass(frozen=True)
class Measuring:
    """What is measured, and for how long."""

    uris: list[str]
    spec: BaseSpec
    arrays: list[np.ndarray]
    seconds: float
    repeat: int


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs")
    options.add_argument("--base", default="vgg16")
    options.add_argument("--weights", default="random")
    options.add_argument("--engine", choices=("keras", "openvino"), default="keras")
    options.add_argument("--precisions", default="float32,bfloat16,float16")
    options.add_argument("--batches", default="32,64,128,256")
    options.add_argument("--workers", help="by commas [1, 2, 4, ... to all cores]")
    options.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options.add_argument("--repeat", type=int, default=4, help="times all files in the pipeline")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    here = hardware.here()
    precisions = chosen.precisions.split(",")
    if not here.gpus and "float16" in precisions:
        precisions.remove("float16")  # computed on GPUs alone
    workers = (
        [int(n) for n in chosen.workers.split(",")] if chosen.workers else _doubling(here.cpus)
    )
    uris = [
        uri
        for batch in photographs_to_label(chosen.photographs)
        for uri in batch["uri"].to_pylist()
    ]
    measuring = Measuring(
        uris,
        _spec_of(chosen.base, chosen.engine),
        weights.load(chosen.base, chosen.weights).arrays,
        chosen.seconds,
        chosen.repeat,
    )
    cards = ", ".join(here.gpus) or "no GPU"
    backend = os.environ.get("KERAS_BACKEND", "tensorflow") if chosen.engine == "keras" else "-"
    print(
        f"{machine()}, {cards}, {datetime.date.today()}; {chosen.base} by {chosen.engine} "
        f"({backend}), {len(uris):,} photographs.\n"
    )
    everything: list[Told] = []
    for told in measured(
        measuring, precisions, [int(n) for n in chosen.batches.split(",")], workers
    ):
        everything.append(told)
        if chosen.json:
            chosen.json.write_text("".join(json.dumps(one) + "\n" for one in everything))
    print("\n".join(markdown(everything)))


def measured(
    measuring: Measuring, precisions: list[str], batches: list[int], workers: list[int]
) -> Iterator[Told]:
    """Each measurement as it is done."""
    best: dict[str, Told] = {}
    for precision, batch in itertools.product(precisions, batches):
        told = forward(measuring, precision, batch)
        yield told
        if told.get("rate", 0) > best.get(precision, {}).get("rate", 0):
            best[precision] = told
    decoding: list[Told] = []
    for by, number in itertools.product(("threads", "processes"), workers):
        decoding.append(decode(measuring, by, number))
        yield decoding[-1]
    fastest = max(best.values(), key=lambda told: told["rate"])
    threads = max((one for one in decoding if one["by"] == "threads"), key=lambda one: one["rate"])
    for job in ("extract", "label"):
        yield pipeline(measuring, job, fastest, threads)


def forward(measuring: Measuring, precision: str, batch: int) -> Told:
    """The engine on the same pixels over and over."""
    told: Told = {"what": "forward", "precision": precision, "batch": batch}
    spec = replace(measuring.spec, precision=precision)
    try:
        engine = _opened(measuring, spec)
        side = spec.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
        return {**told, "rate": _rate(lambda: len(engine(pixels)), measuring.seconds)}
    except Exception as error:  # not enough memory on the card, say: the other sizes are told
        return {**told, "error": str(error).partition("\n")[0][:200]}


def decode(measuring: Measuring, by: str, workers: int) -> Told:
    """Files' bytes, in memory, to pixels."""
    data = [photographs.read(uri, None, Limits()) for uri in measuring.uris[: 64 * workers]]
    context = get_context("spawn")
    all_up = context.Barrier(workers)
    remembered = (data, measuring.spec, all_up)
    pool: Any = (
        ThreadPoolExecutor(workers)
        if by == "threads"
        else ProcessPoolExecutor(workers, context, _remember, remembered)
    )
    with pool:
        if by == "threads":
            _remember(*remembered)
        list(pool.map(_wait_for_all, range(workers)))  # processes take seconds to start
        parts = np.array_split(np.arange(len(data)), min(len(data), 4 * workers))
        rate = _rate(lambda: sum(pool.map(_decode_those, parts)), measuring.seconds)
    return {"what": "decode", "by": by, "workers": workers, "rate": rate}


def pipeline(measuring: Measuring, job: str, forwarded: Told, decoded: Told) -> Told:
    """An actor's stages over all files, `repeat` times."""
    spec = replace(measuring.spec, precision=forwarded["precision"])
    batch, threads = forwarded["batch"], decoded["workers"]
    work: Work = FeatureWork(mirror=False)
    engine = _opened(measuring, spec)
    if job == "label":
        trained: Any = SimpleNamespace(
            classes=CLASSES, feature_shape=engine.feature_shape, none_class=None
        )
        work = LabelWork(trained, PreparedHead(dense=_head(engine.feature_shape[-1])), len(CLASSES))
    prepared: Any = SimpleNamespace(open=lambda threads: engine, spec=spec)
    spent = {"decode": 0.0, "compute": 0.0, "write": 0.0}
    compute = _timed(spent, "compute", work.open(prepared, threads))
    reading = ReadAhead(
        spec, Limits(), threads, 2 * batch + threads, partial(_timed, spent, "decode")
    )
    compute(np.zeros((batch, spec.input_size, spec.input_size, 3), np.uint8))  # compiled now
    spent["compute"] = 0.0
    uris = measuring.uris * measuring.repeat
    listed = (Listed(uri) for uri in uris)
    outcomes = reading.decoded(listed)
    started, rejected = time.perf_counter(), 0
    for first in range(0, len(uris), SHARD):
        rows = _rows(uris[first : first + SHARD])
        results = computed(itertools.islice(outcomes, len(rows)), compute, batch)
        rejected += sum(isinstance(one, Rejected) for one in results)
        _timed(spent, "write", _write)(work, rows, results)
    seconds = time.perf_counter() - started
    limit = min(forwarded["rate"], decoded["rate"])
    return {
        "what": "pipeline",
        "job": job,
        "precision": spec.precision,
        "batch": batch,
        "threads": threads,
        "photographs": len(uris),
        "rejected": rejected,
        "rate": len(uris) / seconds,
        "of_the_lower_limit": len(uris) / seconds / limit,
        "computing": spent["compute"] / seconds,
        "writing": spent["write"] / seconds,
        "decoding_threads": spent["decode"] / seconds,
    }


def markdown(everything: list[Told]) -> Iterator[str]:
    """A table of each kind of measurement."""
    for what, columns in (
        ("forward", ("precision", "batch", "rate", "error")),
        ("decode", ("by", "workers", "rate")),
        (
            "pipeline",
            (
                *("job", "precision", "batch", "threads", "rate", "of_the_lower_limit"),
                *("computing", "writing", "decoding_threads"),
            ),
        ),
    ):
        those = [told for told in everything if told["what"] == what]
        shown = [name for name in columns if any(name in told for told in those)]
        yield f"| {what}: {' | '.join(shown).replace('_', ' ')} |"
        yield "|" + "---|" * len(shown)
        for told in those:
            yield "| " + " | ".join(_shown(told.get(name, "")) for name in shown) + " |"
        yield ""
    yield "computing and writing: shares of the time; decoding threads: busy at a time, on average"


def _shown(value: Any) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and value < 100
        else (f"{value:,.0f}" if isinstance(value, float) else str(value))
    )


def _spec_of(name: str, engine: str) -> BaseSpec:
    base = base_named(name)
    prepared = PREPARATIONS[base.preparation]
    return BaseSpec(
        base=name,
        layer=None,
        input_size=base.input_size,
        preparation=base.preparation,
        resize=prepared.resize,
        precision="float32",
        pool="embedding",
        engine=engine,
        weights="random",
        weights_sha256="",
        colour=prepared.colour,
    )


def _opened(measuring: Measuring, spec: BaseSpec) -> Engine:
    model = measuring.arrays
    if spec.engine == "openvino":
        model = openvino.convert(spec, model, None)
    return PreparedBase(spec, model).open(hardware.available_cpus())


def _head(width: int) -> DenseHead:
    """One as small as trained ones are: 128 units on the embedding; random."""
    chance = np.random.default_rng(0)
    sizes = [width, 128, len(CLASSES)]
    layers = [
        (chance.normal(0, 0.1, pair).astype(np.float32), np.zeros(pair[1], np.float32))
        for pair in itertools.pairwise(sizes)
    ]
    return DenseHead(layers, chance.normal(0, 0.1, (8, width)).astype(np.float32), 1.0)


def _doubling(most: int) -> list[int]:
    return sorted({*(n for n in (1, 2, 4, 8, 16, 32, 64) if n < most), most})


def _rate(step: Callable[[], int], seconds: float) -> float:
    """Photographs a second that `step` does, after one to warm up."""
    step()
    done, started = 0, time.perf_counter()
    while not done or time.perf_counter() - started < seconds:
        done += step()
    return done / (time.perf_counter() - started)


def _timed(spent: dict[str, float], what: str, call: Callable[..., Outcome]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = call(*arguments)
        spent[what] += time.perf_counter() - started
        return result

    return timed


_files: list[bytes] = []  # that a worker decodes
_specs: list[BaseSpec] = []
_all_up: list[Any] = []


def _remember(data: list[bytes], spec: BaseSpec, all_up: Any) -> None:
    _files[:], _specs[:], _all_up[:] = data, [spec], [all_up]


def _wait_for_all(_: int) -> None:
    _all_up[0].wait(timeout=120)


def _decode_those(numbers: Iterable[int]) -> int:
    decoded = [photographs.decoded(lambda: _files[n], _specs[0], Limits()) for n in numbers]  # noqa: B023
    return len(decoded)


def _rows(uris: list[str]) -> pa.Table:
    nothing = [None] * len(uris)
    columns = [list(range(len(uris))), uris, nothing, nothing, nothing]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, MANIFEST, strict=True)], MANIFEST)


def _write(work: Work, rows: pa.Table, results: list[Outcome]) -> None:
    pq.write_table(
        work.table(rows, results), io.BytesIO(), compression="zstd", write_page_checksum=True
    )


if __name__ == "__main__":
    main()
