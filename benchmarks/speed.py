"""flowerray and what users would run instead, in turn on the same photographs, in one run.

    python benchmarks/speed.py PHOTOGRAPHS --work DIR [--repeats 3] [--number 600] [--only ...]

PHOTOGRAPHS holds train/CLASS and valid/CLASS. Rates are of steady state: start-up and the first
batch are left out where a way lets them be. Prints Markdown, and puts each section into its place
in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
from measure import Watched, machine, watch

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
# Photographs in each run, where --number is not what is asked about.
NUMBERS = {"ceiling": 20_000, "memory": 20_000, "startup": 64}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("photographs", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--number", type=int, default=600, help="photographs in each run")
    options.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    chosen = options.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    for name in chosen.only:
        number = NUMBERS.get(name, chosen.number)
        bench = Bench(chosen.photographs.resolve(), chosen.work.resolve(), number)
        run = (
            f"{machine()}, {datetime.date.today()}; medians of {chosen.repeats} rounds in turn, "
            f"{number:,} photographs each."
        )
        title, *lines = SECTIONS[name](bench, chosen.repeats)
        part = "\n".join([title, "", run, *lines]) + "\n"
        print(part, flush=True)
        place = re.compile(f"(?<=<!-- {name} -->\n).*(?=<!-- end of {name} -->)", re.DOTALL)
        DOCUMENT.write_text(place.sub(lambda _, part=part: part, DOCUMENT.read_text()))


class Bench:
    """A directory of `number` photographs by class, each again and again if there are fewer, and
    runs over it."""

    def __init__(self, photographs: Path, work: Path, number: int) -> None:
        self.photographs, self.work, self.number = photographs, work, number
        self.chosen = work / f"photographs-{number}"
        if not self.chosen.exists():
            files = sorted(photographs.glob("*/*/*"))
            random.Random(0).shuffle(files)
            for i, file in enumerate(itertools.islice(itertools.cycle(files), number)):
                link = self.chosen / file.parent.name / f"{i:06d}{file.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)

    def peer(self, way: str, precision: str = "float32") -> float:
        """Photographs a second of a way of peers.py; NaN where it fails or hangs."""
        command = [sys.executable, HERE / "peers.py", way, self.chosen, "--precision", precision]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=900)
            told = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError):
            return float("nan")
        return told["photographs"] / told["seconds"]

    def extract(self, *options: object) -> Run:
        """flowerray extract, with its actors' memory watched."""
        out = self.work / "features"
        shutil.rmtree(out, ignore_errors=True)
        return Run(out, watch("extract", self.chosen, "--out", out, *options))


class Run:
    """One extraction: its steady rate, when the first shard was there, its actors' memory in MB."""

    def __init__(self, out: Path, watched: Watched) -> None:
        self.out, self.actor_megabytes = out, max(watched.actors_megabytes)
        files = sorted((out / "shards").iterdir(), key=lambda file: file.stat().st_mtime)
        rows = [pq.read_metadata(file).num_rows for file in files]
        times = [file.stat().st_mtime for file in files]
        self.first_commit = times[0]
        self.rate = sum(rows[1:]) / (times[-1] - times[0])


def in_turn(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of each way's figure, all ways once before any twice."""
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            figures[name].append(way())
            print(f"{name}: {figures[name][-1]:.2f}", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in figures.items()}


def throughput(bench: Bench, repeats: int) -> list[str]:
    """End to end against the peers and the bare forward pass."""
    memory: dict[str, float] = {}

    def ours(*options: object) -> Callable[[], float]:
        def run() -> float:
            done = bench.extract(*options)
            memory[" ".join(map(str, options))] = done.actor_megabytes
            return done.rate

        return run

    rates = in_turn(
        {
            "forward pass alone, float32": lambda: bench.peer("forward"),
            "forward pass alone, bfloat16": lambda: bench.peer("forward", "bfloat16"),
            "**flowerray**, default": ours(),
            "**flowerray** `--precision float32`": ours("--precision", "float32"),
            "**flowerray** `--precision int8`": ours("--precision", "int8"),
            "**flowerray** `--engine keras`": ours("--engine", "keras"),
            "**flowerray** `--engine keras --precision float32`": ours(
                *("--engine", "keras", "--precision", "float32")
            ),
            "the article's loop, float32": lambda: bench.peer("article_loop"),
            "tf.data and `predict`, float32": lambda: bench.peer("tf_data"),
            "tf.data and `predict`, bfloat16": lambda: bench.peer("tf_data", "bfloat16"),
            "Ray Data's pattern, one actor, float32": lambda: bench.peer("ray_data"),
            "Daft with a class UDF, float32": lambda: bench.peer("daft_udf"),
        },
        repeats,
    )
    article = rates["the article's loop, float32"]
    lines = [
        "### Photographs a second, end to end",
        "",
        "| what | a second | of the article's loop | of the forward pass alone |",
        "|---|---|---|---|",
    ]
    for name, rate in rates.items():
        precision = "float32" if "float32" in name else "bfloat16"
        forward = rates[f"forward pass alone, {precision}"]
        share = "" if "int8" in name else f"{rate / forward:.2f}"
        lines.append(f"| {name} | {rate:.2f} | {rate / article:.2f} | {share} |")
    held = ", ".join(f"{options or 'default'} {m:.0f} MB" for options, m in memory.items())
    return [*lines, "", f"The most memory an actor of flowerray held: {held}."]


def scaling(bench: Bench, repeats: int) -> list[str]:
    """One and two actors of one thread."""
    one, two = (
        lambda actors=actors: (
            bench.extract(*("--actors", actors, "--threads", 1, "--precision", "float32")).rate
        )
        for actors in (1, 2)
    )
    rates = in_turn({"one": one, "two": two}, repeats)
    return [
        "### Scaling",
        "",
        f"Actors of one thread, float32: one {rates['one']:.2f} photographs a second, two "
        f"{rates['two']:.2f}, {rates['two'] / rates['one']:.2f} times as many.",
    ]


def ceiling(bench: Bench, repeats: int) -> list[str]:
    """The pipeline with a base that costs nothing, against decoding alone on every core."""
    rates = in_turn(
        {
            "decoding alone": lambda: bench.peer("decode"),
            "flowerray": lambda: bench.extract("--base", "thumbnail").rate,
        },
        repeats,
    )
    return [
        "### The pipeline's ceiling",
        "",
        f"`--base thumbnail`, which computes next to nothing: {rates['flowerray']:.0f} photographs "
        f"a second; reading and decoding alone, on both cores: {rates['decoding alone']:.0f}; "
        f"{rates['flowerray'] / rates['decoding alone']:.2f} of it.",
    ]


def startup(bench: Bench, repeats: int) -> list[str]:
    """From the command to the first finished batch, against a bare actor with the same model."""

    def ours() -> float:
        started = time.time()
        # A shard of one batch is committed as soon as the batch is done.
        return bench.extract("--shard-size", 8).first_commit - started

    def bare() -> float:
        started = time.time()
        done = subprocess.run(
            [sys.executable, HERE / "bare_actor.py"], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1]) - started

    bench.extract()  # what is cached once for all is no part of it
    seconds = in_turn({"flowerray": ours, "bare": bare}, repeats)
    ratio = seconds["flowerray"] / seconds["bare"]
    steps: dict[str, list[float]] = {}
    for _ in range(repeats):
        shutil.rmtree(bench.work / "features")
        command = [sys.executable, HERE / "startup_steps.py", bench.chosen, bench.work / "features"]
        done = subprocess.run([*command, str(time.time())], capture_output=True, check=True)
        for step, took in json.loads(done.stdout.splitlines()[-1]).items():
            steps.setdefault(step, []).append(took)
    return [
        "### Start-up",
        "",
        f"From the command to the first finished batch of 8: {seconds['flowerray']:.1f} s; a bare "
        "script that calls `ray.init()` and starts one actor that imports TensorFlow and builds "
        f"the same model: {seconds['bare']:.1f} s; {ratio:.2f} times as long.",
        "",
        "Where it goes, in runs of its own (`benchmarks/startup_steps.py`):",
        "",
        "| step | s |",
        "|---|---|",
        *(f"| {step} | {statistics.median(took):.2f} |" for step, took in steps.items()),
    ]


def memory(bench: Bench, repeats: int) -> list[str]:
    """An actor's memory over many photographs."""
    shutil.rmtree(bench.work / "features", ignore_errors=True)
    held = watch("extract", bench.chosen, "--out", bench.work / "features").actors_megabytes
    tenths = ", ".join(f"{held[len(held) * i // 10]:.0f}" for i in range(1, 10))
    return [
        "### Memory over many photographs",
        "",
        "At default settings, once: the larger of the actors held "
        f"{tenths} MB at each tenth of the way, {max(held):.0f} MB at its most.",
    ]


def stores(bench: Bench, repeats: int) -> list[str]:
    """Photographs and features in a bucket, against local files."""
    address = "http://127.0.0.1:9901"
    troubles = {"errors": 0.05, "latency": 0.02}
    script = [sys.executable, HERE.parent / "tests" / "s3_server.py", "9901"]
    options = [str(part) for name, value in troubles.items() for part in (f"--{name}", value)]
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"}
    server = subprocess.Popen([*script, *options])
    try:
        import boto3
        from botocore.config import Config

        retries = Config(retries={"max_attempts": 10, "mode": "standard"})
        time.sleep(5)
        client = boto3.client("s3", config=retries)
        client.create_bucket(Bucket="bench")
        for file in bench.chosen.glob("*/*"):
            key = f"photographs/{file.parent.name}/{file.name}"
            client.put_object(Bucket="bench", Key=key, Body=file.read_bytes())

        def rate(images: object, out: object) -> float:
            told = watch("extract", images, "--out", out, "--overwrite").told
            return told["computed"] / told["seconds"]

        rates = in_turn(
            {
                "local": lambda: rate(bench.chosen, bench.work / "features"),
                "s3": lambda: rate("s3://bench/photographs", "s3://bench/features"),
            },
            repeats,
        )
    finally:
        server.kill()
    return [
        "### Object stores",
        "",
        "Photographs and features in a bucket of an S3 server on the same two cores (moto's), "
        f"which takes {troubles['latency'] * 1000:.0f} ms longer for each request and answers "
        f"{troubles['errors']:.0%} of them with 503: {rates['s3']:.2f} photographs a second at "
        f"default settings, {rates['s3'] / rates['local']:.2f} of the {rates['local']:.2f} from "
        "and to local files.",
    ]


def storage(bench: Bench, repeats: int) -> list[str]:
    """Bytes a photograph, and how fast features are read."""
    lines = ["### Storage", "", "| features | bytes each | read, a second |", "|---|---|---|"]
    for name, options in (
        ("embedding, 512", ()),
        ("`--pool avg`, 512", ("--pool", "avg")),
        ("`--pool none`, 7x7x512", ("--pool", "none")),
    ):
        shards = bench.extract(*options).out / "shards"
        size = sum(file.stat().st_size for file in shards.iterdir())
        started = time.perf_counter()
        rows = pyarrow.dataset.dataset(shards).to_table().num_rows
        rate = rows / (time.perf_counter() - started)
        lines.append(f"| {name}, float16 | {size / rows:,.0f} | {rate:,.0f} |")
    return lines


def accuracy(bench: Bench, repeats: int) -> list[str]:
    """Errors and agreement at each precision, and how exact scaled decoding is."""
    first: dict[str, str] = {}
    lines = [
        "### Labels at each precision",
        "",
        "The classifier is trained on Keras' float32 features and labels `valid/`.",
        "",
        "| precision | engine | errors | labels as the first |",
        "|---|---|---|---|",
    ]
    features, classifier, out = (bench.work / n for n in ("f32", "classifier", "labels"))
    shutil.rmtree(classifier, ignore_errors=True)
    exact = ("--precision", "float32", "--engine", "keras")
    watch("extract", bench.photographs, "--out", features, *exact)
    watch("train", features, "--out", classifier)
    for precision, engine in (
        ("float32", "keras"),
        ("float32", "openvino"),
        ("bfloat16", "keras"),
        ("bfloat16", "openvino"),
        ("int8", "openvino"),
    ):
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("--classifier", classifier, "--out", out)
        how = ("--precision", precision, "--engine", engine)
        watch("label", bench.photographs / "valid", *arguments, *how)
        table = pyarrow.dataset.dataset(out / "shards").to_table().to_pylist()
        labels = {row["uri"]: row["label"] for row in table}
        first = first or labels
        errors = sum(Path(uri).parent.name != label for uri, label in labels.items())
        same = sum(label == first[uri] for uri, label in labels.items())
        counts = f"{errors} of {len(table)} | {same} of {len(table)}"
        lines.append(f"| {precision} | {engine} | {counts} |")
    least, mean = scaled_decoding(sorted((bench.photographs / "valid").glob("*/*")))
    lines += [
        "",
        "Decoding a JPEG at a reduced scale of its DCT instead of whole: the cosine between the "
        f"features of `valid/` is {mean:.4f} in the mean, {least:.4f} at least.",
    ]
    return lines


def scaled_decoding(files: list[Path]) -> tuple[float, float]:
    """The least and mean cosine of features between scaled and whole decoding."""
    from PIL import Image

    from flowerray.bases import weights
    from flowerray.bases.prepared import PreparedBase
    from flowerray.bases.spec import BaseSpec
    from flowerray.sources import photographs
    from flowerray.sources.photographs import Limits

    def whole(data: bytes) -> np.ndarray:
        image = photographs.upright(photographs.open_image(data, Limits()), None)
        return np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))

    spec = BaseSpec("vgg16", None, 224, "vgg", "bilinear-dct", "float32", "keras", "imagenet", "-")
    engine = PreparedBase(spec, weights.load("vgg16").arrays).open(threads=2)
    cosines = []
    for file in files:
        data = file.read_bytes()
        pair = np.stack([photographs.decode(data, 224, spec.resize, Limits()), whole(data)])
        one, other = engine(pair).reshape(2, -1)
        cosines.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    return min(cosines), statistics.fmean(cosines)


SECTIONS = {
    section.__name__: section
    for section in (throughput, scaling, ceiling, startup, memory, stores, storage, accuracy)
}

if __name__ == "__main__":
    main()
