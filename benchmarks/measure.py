"""What the benchmarks share: the machine's name, and a flowerray command watched as it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerray.bases import hardware

SECONDS_BETWEEN_SAMPLES = 0.5


@dataclass
class Watched:
    """A command that ended well: what it told as JSON, its seconds, the most memory its own process
    held, and the actors' memory as time went by; all in MB."""

    told: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    driver_megabytes: float = 0.0
    actors_megabytes: list[float] = field(default_factory=list)


def machine() -> str:
    """The processor and how many CPUs of it."""
    here = hardware.here()
    return f"{here.cpus} CPUs, {here.processor}"


def watch(*arguments: object) -> Watched:
    """Run a flowerray command with --json and watch it."""
    command = [sys.executable, "-m", "flowerray.cli", *map(str, arguments), "--json"]
    started, watched = time.monotonic(), Watched()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        watched.driver_megabytes = max(watched.driver_megabytes, peak_megabytes(process.pid))
        held = list(_actors_megabytes())
        if held:
            watched.actors_megabytes.append(max(held))
        time.sleep(SECONDS_BETWEEN_SAMPLES)
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {errors}")
    watched.told, watched.seconds = json.loads(output), time.monotonic() - started
    return watched


def peak_megabytes(pid: int | str) -> float:
    """The most memory that the process `pid` has held so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
    except (OSError, StopIteration):
        return 0.0


def _actors_megabytes() -> Iterator[float]:
    """Resident memory of every Ray Data actor now, less the object store that all share."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                _, resident, shared, *_ = (directory / "statm").read_text().split()
                yield (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1e6
        except OSError:
            continue
