"""A cluster of several nodes, a raylet each: one is lost, one joins, one doesn't see the disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
from conftest import free_port
from PIL import Image
from test_metrics import queried

from flowerray.commands.extract import extract
from flowerray.commands.verify import verify
from flowerray.settings import ExtractSettings

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).parent / "ray")
RAY_DIRECTORY = "/tmp/flowerray-test-nodes"
PHOTOGRAPHS, SHARD = 1500, 10

# While the file is there, photographs come as from a store that takes so many seconds: then the run
# has a midst.
SLOW = """
import os, time
from PIL import Image, JpegImagePlugin

class Slow(JpegImagePlugin.JpegImageFile):
    def _open(self):
        if os.path.exists({slow!r}):
            with open({slow!r}) as file:
                time.sleep(float(file.read()))
        super()._open()

Image.register_open("JPEG", Slow, lambda head: head.startswith(b"\\xff\\xd8"))
"""


class Nodes:
    """A head without CPUs, and workers of one CPU each that join it. `ports` are where each serves
    its metrics."""

    def __init__(self, directory):
        self.slow = directory / "slow"
        (directory / "plugin").mkdir()
        (directory / "plugin" / "sitecustomize.py").write_text(SLOW.format(slow=str(self.slow)))
        path = [str(directory / "plugin"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
            "PYTHONPATH": os.pathsep.join(path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_metrics_report_interval_ms": "1000",
            "RAY_health_check_period_ms": "1000",
        }
        self.directory, self.ports, self.processes = directory, {}, {}

    def slow_down(self, seconds):
        new = self.slow.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.slow)

    def begin(self):
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        options = [f"--temp-dir={RAY_DIRECTORY}", "--include-dashboard=false"]
        self.start("head", "--head", f"--port={port}", "--num-cpus=0", *options)

    def join(self, name, prefix=()):
        self.start(name, f"--address={self.address}", "--num-cpus=1", prefix=prefix)

    def start(self, name, *options, prefix=()):
        """One at a time: on one machine, two that start at once may get in each other's way. On a
        busy machine a node may take longer than the 30 s that `ray start` waits: then once more."""
        tries = (self.came_up(name, *options, prefix=prefix) for _ in range(2))
        assert any(tries), f"{name} did not come up"

    def came_up(self, name, *options, prefix):
        self.ports[name] = free_port()
        options = [*options, f"--metrics-export-port={self.ports[name]}"]
        log = self.directory / f"{name}.log"
        with open(log, "wb") as stream:
            process = self.processes[name] = subprocess.Popen(
                [*prefix, RAY, "start", "--block", "--object-store-memory=100000000", *options],
                env=self.environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                print(log.read_text())
                self.kill(name)
                return False
            time.sleep(0.1)
        return True

    def kill(self, name):
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # in the group: all of the node
        process.wait(timeout=60)

    def flowerray(self, *arguments):
        command = [sys.executable, "-m", "flowerray.cli", *map(str, arguments)]
        return subprocess.Popen(
            [*command, "--address", self.address, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def metrics(self, *names, prefix="ray_flowerray_"):
        """What these nodes, or all, serve, summed by name (without the prefix) and by reason."""
        sums = Counter()
        for name in names or self.processes:
            url = f"http://127.0.0.1:{self.ports[name]}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            for line in lines:
                if found := re.match(rf"{prefix}(\w+)\{{(.*)\}} (\S+)$", line):
                    metric, labels, value = found.groups()
                    sums[metric] += float(value)
                    if reason := re.search(r'reason="(\w+)"', labels):
                        sums[f"{metric} {reason.group(1)}"] += float(value)
        return sums


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    there = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        there.begin()
        there.join("one")
        there.join("two")
        yield there
    finally:
        for name in list(there.processes):
            there.kill(name)


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    """Many small photographs, and a few that are rejected."""
    directory = tmp_path_factory.mktemp("pile")
    chance = np.random.default_rng(0)
    for i in range(PHOTOGRAPHS):
        pixels = chance.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(directory / f"{i:05d}.jpg")
    (directory / "empty.jpg").touch()
    for name in ("text.jpg", "00000b.jpg"):
        (directory / name).write_text("no picture")
    return directory


def rows_of(out):
    return pyarrow.dataset.dataset(out / "shards").to_table().sort_by("image_id").to_pylist()


def wait_until(true, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_nodes_come_and_go_and_the_metrics_are_true(nodes, pile, local_ray, tmp_path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    nodes.slow_down(0.1)
    options = ("--base", "thumbnail", "--shard-size", SHARD, "--batch-size", 5)
    process = nodes.flowerray("extract", pile, "--out", out, *options)
    wait_until(lambda: len(list((out / "shards").glob("*.parquet"))) > 4, process)
    nodes.slow_down(1)  # joining may take a minute
    nodes.join("three")
    nodes.slow_down(0.1)
    wait_until(lambda: nodes.metrics("three")["photographs_total"] > 0, process)
    during, gone = nodes.metrics(), nodes.metrics("two")["photographs_total"]
    assert during["run_listed_total"] == PHOTOGRAPHS + 3
    committed = verify(str(out)).present
    for metric in ("run_done_total", "photographs_total"):
        assert 0 < during[metric] <= committed < PHOTOGRAPHS
    assert during["decode_seconds_total"] > 0.1 * (during["photographs_total"] - 3)
    assert during["compute_seconds_total"] > 0
    wait_until(lambda: queried() <= set(nodes.metrics(prefix="")), process)
    nodes.kill("two")
    nodes.slow.unlink()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    summary = json.loads(output)
    assert summary["rejected"] == {"not_an_image": 2, "empty": 1}
    assert verify(str(out)).whole
    extract(ExtractSettings(images=str(pile), out=str(alone), base="thumbnail", shard_size=SHARD))
    assert rows_of(out) == rows_of(alone)
    after = nodes.metrics()
    assert after["run_done_total"] == after["run_listed_total"] == PHOTOGRAPHS + 3
    assert after["run_rejected_total not_an_image"] == 2 and after["run_rejected_total empty"] == 1
    # What "two" told is gone with it, and what it could not tell any more.
    assert during["photographs_total"] < after["photographs_total"] < PHOTOGRAPHS + 3
    assert 0 < gone <= PHOTOGRAPHS + 3 - after["photographs_total"]


def test_actors_count_each_photograph_once(nodes, pile, tmp_path):
    before = nodes.metrics()
    process = nodes.flowerray("extract", pile, "--out", tmp_path / "out", "--base", "thumbnail")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    wanted = {
        "photographs_total": PHOTOGRAPHS + 3,
        "rejected_total empty": 1,
        "rejected_total not_an_image": 2,
        "shards_total": len(list((tmp_path / "out" / "shards").iterdir())),
        "run_done_total": PHOTOGRAPHS + 3,
        "run_listed_total": PHOTOGRAPHS + 3,
    }
    deadline = time.monotonic() + 15  # the agents hear of an actor's last counts as it ends
    counted = {}
    while counted != wanted and time.monotonic() < deadline:
        after = nodes.metrics()
        counted = {name: after[name] - before[name] for name in wanted}
    assert counted == wanted


def test_a_node_that_lacks_the_disk_is_told_before_the_job(nodes, pile, tmp_path):
    hidden, bare = tmp_path / "hidden", tmp_path / "bare"
    for directory in (hidden / "pile", bare):
        directory.mkdir(parents=True)
    shutil.copy(pile / "00001.jpg", hidden / "pile")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a node with mounts of its own needs unshare and root")
    mount = f'mount -t tmpfs tmpfs {hidden} && exec "$@"'
    nodes.join("bare", prefix=("unshare", "-m", "sh", "-c", mount, "sh"))
    for images, out, unseen in (
        (pile, hidden / "out", hidden / "out"),
        (hidden / "pile", bare / "out", hidden / "pile" / "00001.jpg"),
    ):
        process = nodes.flowerray("extract", images, "--out", out, "--base", "thumbnail")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        line = errors.splitlines()[-1]
        assert line.startswith("flowerray: the nodes don't share a disk: ")
        assert f"doesn't see {unseen}" in line and "Traceback" not in errors
        assert not list((out / "shards").glob("*"))
