"""The benchmarks that are too long to run here still fit the code."""

import json
import subprocess
import sys
import time

import scaling
from conftest import REPOSITORY


def test_every_probe_of_scaling_measures_something(tmp_path):
    numbers = {"listing": 2048, "rows": 2048, "walk": 1000, "plan": 100, "names": 100}
    for probe in scaling.PROBES:  # in order: some read what others wrote
        if probe not in ("given", "ray"):  # these start a Ray of their own
            told = scaling.PROBES[probe](tmp_path, numbers.get(probe, 2))
            assert all(figure > 0 for figure in told.values()), probe


def test_the_steps_of_a_start_are_told(few, tmp_path):
    command = [sys.executable, REPOSITORY / "benchmarks" / "startup_steps.py", few.labelled]
    done = subprocess.run(
        [*command, tmp_path / "features", str(time.time())], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    took = json.loads(done.stdout.splitlines()[-1])
    assert len(took) == 6 and all(seconds > 0 for seconds in took.values())
