"""What runs where, on clusters of any make."""

import contextlib
import io
import json
import math
import re
import sys
import time

import pytest
from conftest import REPOSITORY

from flowerray import stores
from flowerray.bases import hardware
from flowerray.cli import main
from flowerray.commands import doctor
from flowerray.commands.extract import extract
from flowerray.errors import FlowerrayError
from flowerray.pipeline import local_ray, tasks
from flowerray.pipeline.plan import planned
from flowerray.pipeline.tasks import Node
from flowerray.settings import ExtractSettings, PlanSettings

GIB = 1 << 30


def plan_of(monkeypatch, nodes, **options):
    """(device, actors, cpus, gpus, threads) of each group on nodes of (cpus, gpus, GiB)."""
    there = [Node(str(i), "-", c, g, m * GIB) for i, (c, g, m) in enumerate(nodes)]
    monkeypatch.setattr("flowerray.pipeline.plan.nodes", lambda: there)
    groups = planned(PlanSettings(**options)).groups
    return [(g.device, g.actors, g.cpus, g.gpus, g.threads) for g in groups]


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([(2, 0, 24)], {}, [("cpu", 2, 1, 0, 1)]),
        ([(1, 0, 24)], {}, [("cpu", 1, 1, 0, 1)]),
        ([(64, 0, 64)], {}, [("cpu", 32, 2, 0, 2)]),
        ([(2, 0, 24)], {"actors": 1}, [("cpu", 1, 2, 0, 2)]),
        ([(2, 0, 24)], {"actors": 4}, [("cpu", 4, 0.5, 0, 1)]),
        ([(1, 0, 24)] * 3, {"actors": 4}, [("cpu", 4, 0.5, 0, 1)]),
        ([(1, 0, 24)] * 4, {"actors": 2}, [("cpu", 2, 1, 0, 1)]),
        ([(8, 0, 24), (2, 0, 24)], {"actors": 2}, [("cpu", 2, 2, 0, 2)]),
        ([(2, 0, 24)], {"actors": 1, "threads": 1}, [("cpu", 1, 1, 0, 1)]),
        ([(16, 1, 128)], {}, [("gpu", 1, 16, 1, 16)]),
        ([(16, 4, 128), (8, 0, 64)], {}, [("gpu", 4, 4, 1, 4), ("cpu", 8, 1, 0, 1)]),
        ([(16, 4, 128), (8, 0, 64)], {"actors": 2}, [("gpu", 2, 4, 1, 4)]),
        ([(16, 4, 128), (8, 0, 64)], {"device": "cpu"}, [("cpu", 24, 1, 0, 1)]),
        ([(2, 0, 8)], {"device": "gpu", "actors": 8, "address": "auto"}, [("gpu", 8, 1, 1, 8)]),
    ],
)
def test_plans(monkeypatch, nodes, options, expected):
    assert plan_of(monkeypatch, nodes, **options) == expected


def test_a_local_ray_without_gpus_is_not_waited_for(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(FlowerrayError, match="--device gpu: Ray sees no GPU on this machine"):
        plan_of(monkeypatch, [(2, 0, 24)], device="gpu")
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # as in a job: its cluster may get a GPU node
    assert plan_of(monkeypatch, [(2, 0, 24)], device="gpu") == [("gpu", 1, 1, 1, 8)]


def test_an_actor_of_every_plan_fits_each_node_that_has_its_device(monkeypatch):
    for nodes in ([(1, 0, 2)], [(3, 0, 4), (7, 0, 64)], [(2, 1, 8), (32, 8, 256), (5, 0, 9)]):
        for actors in (None, 1, 2, 3, 7, 50):
            for device, count, cpus, gpus, _ in plan_of(monkeypatch, nodes, actors=actors):
                having = [n for n in nodes if n[1]] if gpus else nodes
                assert count and all(cpus <= c for c, g, _ in having if device == "cpu" or g)


def test_a_job_that_waits_for_others_says_so(local_ray, sample, tmp_path, monkeypatch):
    import ray

    ended, told = tmp_path / "ended", []

    @ray.remote(num_cpus=hardware.available_cpus())
    def other_job():
        while not ended.exists():
            time.sleep(0.1)

    def end_it(message):
        told.append(message)
        ended.touch()

    monkeypatch.setattr("flowerray.pipeline.tasks.say", end_it)
    other = other_job.remote()
    while ray.available_resources().get("CPU", 0):
        time.sleep(0.1)
    extract(ExtractSettings(images=sample.labelled, out=tmp_path / "out", base="thumbnail"))
    ray.get(other)
    (message,) = told
    assert message.startswith("extract: waiting for room on the cluster: needs 1 CPU, 0 GPU")


def test_plan_and_doctor_tell_of_this_machine(local_ray, capsys):
    assert main(["plan", "--actors", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(group["actors"] for group in told["groups"]) == 1
    assert told["precision"] in ("float32", "bfloat16")
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (node,) = told["nodes"]
    here = hardware.here()
    assert (node["processor"], node["cpus"]) == (here.processor, here.cpus)
    assert main(["doctor"]) == 0
    assert here.processor in capsys.readouterr().out


def test_plan_says_what_a_small_base_saves_where_that_was_measured(local_ray, capsys, monkeypatch):
    def told(fastest, **options):
        monkeypatch.setattr("flowerray.pipeline.precision.fastest", lambda device: fastest)
        return doctor.plan(PlanSettings(**options)).advice

    advice = told(("bfloat16", "openvino"))
    benchmarks = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    (measured,) = re.findall(r"`--base efficientnet-lite0` \| \d+ \| ([\d.]+) \|", benchmarks)
    assert f"efficientnet-lite0 computed {measured} times as many photographs a second" in advice
    assert "bfloat16 (benchmarks/bases.py)" in advice
    assert told(("float32", "openvino")) is None and told(("bfloat16", "keras")) is None
    monkeypatch.setattr("flowerray.pipeline.plan.nodes", lambda: [Node("0", "-", 8, 1, 64 * GIB)])
    assert told(("bfloat16", "openvino")) is None
    monkeypatch.undo()
    assert main(["plan"]) == 0
    here = doctor.plan(PlanSettings()).advice
    assert (here or "--engine auto") in capsys.readouterr().out


def test_a_task_reaches_stores_as_its_job_does(local_ray):
    before = stores.in_use()
    stores.use(stores.Access("http://minio:9000", anonymous=True))
    try:
        assert tasks.run_once(stores.in_use) == stores.Access("http://minio:9000", True)
    finally:
        stores.use(before)


def test_what_takes_stderr_need_be_no_file():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), local_ray.without_core_log():
        print("progress", file=sys.stderr)
    assert said.getvalue() == "progress\n"


def test_a_control_group_s_quota_of_cpus_counts(tmp_path):
    assert hardware.cpu_quota(tmp_path) == math.inf
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, cpus in (("-1", math.inf), ("250000", 2.5)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        assert hardware.cpu_quota(tmp_path) == cpus
    for quota, cpus in (("max", math.inf), ("150000", 1.5)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        assert hardware.cpu_quota(tmp_path) == cpus
