"""Random faults on a Ray cluster of several nodes on one machine: killed actors, nodes, drivers,
engines that die, a second driver on the same output, reads that hang.

    python tests/chaos.py [--seeds 50] [--first-seed 0] [--pictures 1500] [--classifier DIR]

Each seed labels the same pile of small drawn pictures while something goes wrong at random moments,
runs the same command again until it ends well, and then checks: every row once, the labels of an
undisturbed run, no file that a reader would not expect, and no more redone than was not committed.
Among the pictures are some of a server that never ends its answer, and a named pipe: each is
`unreadable`, and holds up nothing. A second driver must be refused while the first one lives.
The base is `thumbnail`, so that the time goes into what is tested. Bounded: a seed that takes more
than five minutes fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset
from PIL import Image

from flowerray.commands.sample import draw_sample

SHARD, BATCH, ACTORS = 10, 5, 2
SECONDS_A_SEED = 300
READ_SECONDS = 3  # of a photograph, before it is given up
HANGING = 3  # photographs of the server that never ends its answer
FAULTS = ("actor", "engine", "node", "driver", "second driver")


@dataclass
class Outcome:
    """What a seed did: the faults, the runs it took, and of the last one the photographs that it
    computed, and how many of these a killed actor had been computing."""

    kills: list[str]
    runs: int
    computed: int
    redone: int


class Chaos:
    """A cluster of a head and two workers, a pile, a classifier, and the undisturbed labels."""

    def __init__(self, directory: Path, pictures: int, classifier: Path | None) -> None:
        from ray.cluster_utils import Cluster

        self.directory, self.pile = directory, directory / "pile.txt"
        self.classifier = classifier or trained(directory)
        self.open = ExitStack()
        draw_pile(directory / "pile", pictures)
        os.mkfifo(directory / "pile" / "pipe.jpg")
        server = self.open.enter_context(server_that_trickles())
        names = sorted(os.listdir(directory / "pile"))
        hanging = [f"http://127.0.0.1:{server}/{i}.jpg" for i in range(HANGING)]
        listed = [f"pile/{name}" for name in names]
        step = len(listed) // (HANGING + 1)
        for i, uri in enumerate(hanging):
            listed.insert(step * (i + 1), uri)
        self.pile.write_text("".join(f"{uri}\n" for uri in listed))
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.cluster.add_node(num_cpus=1) for _ in range(ACTORS)]
        self.expected = self.undisturbed()

    def close(self) -> None:
        self.cluster.shutdown()
        self.open.close()

    def label(self, out: Path) -> subprocess.Popen[str]:
        command = flowerray(
            *("label", self.pile, "--classifier", self.classifier, "--out", out, "--json"),
            *("--address", self.cluster.address, "--actors", ACTORS, "--shard-size", SHARD),
            *("--batch-size", BATCH, "--read-timeout", READ_SECONDS),
        )
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def undisturbed(self) -> dict[str, str]:
        process = self.label(self.directory / "undisturbed")
        _, errors = process.communicate(timeout=SECONDS_A_SEED)
        assert process.returncode == 0, errors
        return labels_of(self.directory / "undisturbed")

    def seed(self, seed: int) -> Outcome:
        """Run one seed; raises AssertionError where a promise is broken."""
        chance = random.Random(seed)
        out, kills, runs = self.directory / f"seed-{seed}", [], 0
        deadline = time.monotonic() + SECONDS_A_SEED
        planned = chance.choices(FAULTS, k=chance.randint(1, 4))
        while True:
            runs += 1
            before = self.committed(out)
            process = self.label(out)
            while planned and process.poll() is None:
                self.wait_for_a_moment(chance, out, process)
                if process.poll() is None:
                    kills.append(self.fault(planned.pop(), chance, out, process))
            output, errors = process.communicate(timeout=max(1, deadline - time.monotonic()))
            if process.returncode == 0:
                break
            assert time.monotonic() < deadline, errors
        summary = json.loads(output)
        # What was committed stays; of the rest, each actor redoes at most the shard it was at.
        assert summary["computed"] <= len(self.expected) - before, (summary, before)
        assert summary["redone"] <= len(kills) * ACTORS * SHARD, (summary, kills)
        self.check(out)
        return Outcome(kills, runs, summary["computed"], summary["redone"])

    def wait_for_a_moment(self, chance: random.Random, out: Path, process) -> None:
        """A random wait, mostly into the time when shards are being written."""
        share = chance.random()
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if self.committed(out) >= share * len(self.expected) * 0.9 and chance.random() < 0.5:
                return
            time.sleep(0.02)

    def committed(self, out: Path) -> int:
        """Photographs in committed shards."""
        try:
            first_rows = [int(name.partition(".")[0]) for name in os.listdir(out / "shards")]
        except FileNotFoundError:
            return 0
        return sum(min(SHARD, len(self.expected) - first_row) for first_row in first_rows)

    def fault(self, what: str, chance: random.Random, out: Path, process) -> str:
        if what == "driver":
            os.killpg(process.pid, signal.SIGKILL)
        elif what == "second driver":
            self.check_refused(out, process)
        elif what == "node":
            node = self.workers.pop(chance.randrange(len(self.workers)))
            self.cluster.remove_node(node, allow_graceful=False)
            self.workers.append(self.cluster.add_node(num_cpus=1))
        else:
            # An engine ends its process by an abort or a segmentation fault.
            ends = (signal.SIGABRT, signal.SIGSEGV) if what == "engine" else (signal.SIGKILL,)
            actors = actors_of(os.getpid())
            if actors:
                os.kill(chance.choice(actors), chance.choice(ends))
        return what

    def check_refused(self, out: Path, first: subprocess.Popen[str]) -> None:
        """A second driver is refused in a line with the first one's process id."""
        if not (out / "run.json").exists():
            return
        second = self.label(out)
        _, errors = second.communicate(timeout=SECONDS_A_SEED)
        if first.poll() is None:
            assert second.returncode == 1, (second.returncode, errors)
            told = errors.strip().splitlines()[-1]
            assert str(first.pid) in told and socket.gethostname() in told, errors

    def check(self, out: Path) -> None:
        verified = subprocess.run(
            flowerray("verify", out, "--json"), capture_output=True, text=True, check=False
        )
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert labels_of(out) == self.expected
        names = {entry.name for entry in out.iterdir()}
        assert names - {"evidence.parquet"} == {"run.json", "manifest", "shards"}, names
        odd = [name for name in os.listdir(out / "shards") if not name.endswith(".parquet")]
        assert not odd, odd


def flowerray(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "flowerray.cli", *map(str, arguments)]


def trained(directory: Path) -> Path:
    sample = draw_sample(directory / "sample", per_class=6)
    features, classifier = directory / "features", directory / "classifier"
    for command in (
        ("extract", sample.labelled, "--out", features, "--base", "thumbnail"),
        ("train", features, "--out", classifier),
    ):
        subprocess.run(flowerray(*command), check=True, capture_output=True)
    return classifier


def draw_pile(pile: Path, pictures: int) -> None:
    pile.mkdir()
    chance = np.random.default_rng(0)
    for i in range(pictures):
        coarse = Image.fromarray(chance.integers(0, 256, (6, 6, 3), np.uint8))
        coarse.resize((800, 600), Image.Resampling.BICUBIC).save(pile / f"{i:05d}.jpg")
    (pile / "broken.jpg").write_bytes(b"no picture")


@contextmanager
def server_that_trickles() -> Iterator[int]:
    """The port of a web server that sends a byte of each photograph now and then, without end."""

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                connection.sendall(b"\xff")
                time.sleep(0.5)

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]


def labels_of(out: Path) -> dict[str, str]:
    table = pyarrow.dataset.dataset(out / "shards").to_table(columns=["uri", "label", "error"])
    rows = table.to_pylist()
    labels = {row["uri"]: row["label"] or row["error"] for row in rows}
    assert len(labels) == len(rows)
    return labels


def actors_of(driver: int) -> list[int]:
    """Process ids of the actors of a Ray that process `driver` started: children of its raylets."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    parent = {int(pid): int(ppid) for pid, ppid, _ in rows}
    workers = (int(pid) for pid, _, title in rows if title.startswith("ray::MapWorker"))
    return [pid for pid in workers if parent.get(parent[pid]) == driver]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seeds", type=int, default=50)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--pictures", type=int, default=1500)
    options.add_argument("--classifier", type=Path, help="on thumbnails; by default one is trained")
    chosen = options.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory(prefix="flowerray-chaos-") as directory:
        chaos = Chaos(Path(directory), chosen.pictures, chosen.classifier)
        try:
            for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
                started = time.monotonic()
                try:
                    outcome = chaos.seed(seed)
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    print(f"seed {seed}: FAILED: {error}", flush=True)
                    continue
                survived += 1
                print(
                    f"seed {seed}: {', '.join(outcome.kills) or 'nothing'}; {outcome.runs} "
                    f"runs, the last computed {outcome.computed} of {len(chaos.expected)}, "
                    f"{outcome.redone} of them again; {time.monotonic() - started:.0f} s",
                    flush=True,
                )
        finally:
            chaos.close()
    print(f"{survived} of {chosen.seeds} seeds whole, with the labels of an undisturbed run")
    return 0 if survived == chosen.seeds else 1


if __name__ == "__main__":
    sys.exit(main())
