"""What runs where, and what limits it: the resource plan, and what each node can do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from flowerray.bases import hardware, weights
from flowerray.bases.hardware import Hardware
from flowerray.pipeline import connection, precision, tasks
from flowerray.pipeline.plan import ACTOR_BYTES, planned
from flowerray.pipeline.tasks import Node
from flowerray.settings import ClusterSettings, PlanSettings

# As benchmarks/bases.py measured it, in OpenVINO and bfloat16: docs/benchmarks.md, "Small bases".
LITE0_TIMES = 11.7


@dataclass(frozen=True)
class PlanReport:
    """The groups of actors that a job would start here (see ``flowerray.pipeline.plan.Group``),
    the precision and engine that `auto` means, and a sentence on what would be faster."""

    groups: list[dict[str, Any]]
    precision: str
    engine: str
    advice: str | None


@dataclass(frozen=True)
class Diagnosis:
    """What each node can do, and sentences about what holds it back."""

    nodes: list[dict[str, Any]]
    weights: list[str]
    limits: list[str]


def plan(settings: PlanSettings) -> PlanReport:
    """What an extract or label with these options would start.

    Raises:
        FlowerrayError: the cluster can't be reached or has no CPUs.
    """
    with connection.connection(settings.address):
        groups = [dataclasses.asdict(group) for group in planned(settings).groups]
        fastest = precision.fastest(settings.device)
        return PlanReport(groups, *fastest, _advice(groups, *fastest))


def _advice(groups: list[dict[str, Any]], precision: str, engine: str) -> str | None:
    """What would be faster than the default, where that was measured on machines like these."""
    on_cpus = all(group["device"] == "cpu" for group in groups)
    if not on_cpus or (precision, engine) != ("bfloat16", "openvino"):
        return None
    return (
        f"--base efficientnet-lite0 computed {LITE0_TIMES:g} times as many photographs a second as "
        "vgg16, the default, on 2 CPUs with bfloat16 (benchmarks/bases.py)"
    )


def diagnose(settings: ClusterSettings) -> Diagnosis:
    """Look at every node of the cluster, or at this machine.

    Raises:
        FlowerrayError: the cluster can't be reached or has no CPUs.
    """
    with connection.connection(settings.address):
        found = tasks.on_each_node(hardware.here)
    nodes = [
        dataclasses.asdict(machine)
        | {
            "address": node.address,
            "ray_cpus": node.cpus,
            "ray_gpus": node.gpus,
            "ray_memory_bytes": node.memory_bytes,
        }
        for node, machine in found.items()
    ]
    cached = [entry["base"] for entry in weights.in_cache()]
    limits = [
        f"{node.address}: {limit}"
        for node, machine in found.items()
        for limit in _limits(node, machine)
    ]
    return Diagnosis(nodes, cached, limits)


def _limits(node: Node, machine: Hardware) -> list[str]:
    limits = []
    if not machine.gpus:
        if not machine.bfloat16:
            limits.append("no bfloat16 instructions: float32 is the fastest without int8")
        if not machine.openvino:
            limits.append(
                "no OpenVINO: pip install 'flowerray[openvino]' for int8, sooner starts and less "
                "memory (docs/benchmarks.md says how much)"
            )
    if node.memory_bytes < node.cpus * ACTOR_BYTES and not machine.gpus:
        limits.append("less than 2 GiB of Ray's memory a CPU: fewer actors of more threads each")
    return limits
