"""The benchmarks that are too long to run here still fit the code."""

import json
import os
import subprocess
import sys
import time

import pytest
import scaling
from conftest import REPOSITORY

pytestmark = pytest.mark.slow


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


def test_the_limits_of_a_machine_are_measured_without_ray(few, tmp_path):
    told = tmp_path / "told.jsonl"
    script = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "finally:\n"
        "    assert 'ray' not in sys.modules\n"
    )
    benchmark = str(REPOSITORY / "benchmarks" / "gpu.py")
    options = ["--base", "thumbnail", "--seconds", "0.1", "--batches", "4", "--workers", "1"]
    command = [sys.executable, "-c", script, benchmark, str(few.labelled), *options]
    done = subprocess.run(
        [*command, "--repeat", "1", "--json", str(told)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "benchmarks")},
    )
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in told.read_text().splitlines()]
    assert [one["what"] for one in measured].count("pipeline") == 2
    assert all(one["rate"] > 0 for one in measured)
    assert all(one["rejected"] == 0 for one in measured if one["what"] == "pipeline")
    assert "| pipeline: job |" in done.stdout
