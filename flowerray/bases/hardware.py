"""What a machine can compute with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hardware:
    """One machine. `bfloat16` and `int8` say whether its CPUs have instructions of their own for
    them (AVX512-BF16 or AMX; VNNI or AMX); `gpus` are names with their compute capability;
    `onnx_on_gpus`, whether ONNX Runtime is the one for GPUs."""

    processor: str
    cpus: int
    bfloat16: bool
    int8: bool
    gpus: tuple[str, ...]
    openvino: bool
    onnx_on_gpus: bool = False

    @property
    def bfloat16_on_gpus(self) -> bool:
        """Whether every GPU has instructions for it: from compute capability 8 on."""
        return all(_capability(gpu) >= 8 for gpu in self.gpus)


def here() -> Hardware:
    """The machine this runs on."""
    info = _cpuinfo()
    flags = set(info.get("flags", "").split())
    return Hardware(
        processor=info.get("model name") or platform.processor() or platform.machine(),
        cpus=available_cpus(),
        bfloat16=bool(flags & {"avx512_bf16", "amx_bf16"}),
        int8=bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"}),
        gpus=_gpus(),
        openvino=has_openvino(),
        onnx_on_gpus=_has_package("onnxruntime-gpu"),
    )


def has_openvino() -> bool:
    """Whether the packages of ``flowerray[openvino]`` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("openvino", "nncf"))


def _has_package(name: str) -> bool:
    with suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(name)
        return True
    return False


def available_cpus() -> int:
    """CPUs this process may use: fewer than the machine has under taskset or in a container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cpus, cpu_quota(Path("/sys/fs/cgroup")))))


def cpu_quota(control_group: Path) -> float:
    """How many CPUs' time a control group gets, of either version; infinite without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (control_group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        names = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
        quota_us, period_us = (int((control_group / name).read_text()) for name in names)
        return quota_us / period_us if quota_us > 0 else math.inf
    return math.inf


def hide_gpus() -> None:
    """Keep this process off GPUs that Ray gave it none of: CUDA would take memory of the first."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _cpuinfo() -> dict[str, str]:
    """The first CPU of /proc/cpuinfo; nothing on systems without."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _capability(gpu: str) -> float:
    """Of a GPU as `Hardware.gpus` names it; one that doesn't say is taken for a recent one."""
    with suppress(ValueError):
        return float(gpu.rpartition(",")[2])
    return math.inf


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(done.stdout.splitlines()) if done.returncode == 0 else ()
