"""The precision ladder: what `auto` is here, the quantised base of int8, and how labels agree.

float32 and bfloat16 are computed by either engine, int8 through OpenVINO on a base that nncf
quantised after a sample of the job's own photographs. That base is kept beside what was made with
it, as ``int8.npz``.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa

from flowerray import catalog, cluster, conversion, hardware, shards
from flowerray.bases import BaseSpec, base_named
from flowerray.catalog import Shard
from flowerray.engines import open_engine, openvino
from flowerray.errors import FlowerrayError, UsageError
from flowerray.isolated import IsolatedReader
from flowerray.photographs import Limits, Rejected
from flowerray.progress import say
from flowerray.shards import Output
from flowerray.storage import Folder
from flowerray.weights import Weights

QUANTISED = "int8.npz"
CALIBRATION_PHOTOGRAPHS = 128
AGREEMENT_PHOTOGRAPHS = 128
SEED = 0


def settled(spec: BaseSpec, recorded: BaseSpec | None, device: str) -> BaseSpec:
    """`spec` with its precision and engine decided.

    Args:
        spec: its precision may be "auto", its engine "auto".
        recorded: the spec of the output that the job goes on with, which stays if `spec` allows.

    Raises:
        UsageError: int8 or OpenVINO asked for where it can't be.
    """
    if not base_named(spec.base).builder:  # nothing in it that another would gain
        spec = replace(spec, precision="float32")
    if recorded is not None:
        adopted = replace(
            spec,
            precision=recorded.precision if spec.precision == "auto" else spec.precision,
            engine=recorded.engine if spec.engine == "auto" else spec.engine,
            calibration=spec.calibration or recorded.calibration,
            colour=recorded.colour,
        )
        if adopted == recorded:
            spec = recorded
    precision, engine = spec.precision, spec.engine
    if precision == "int8" and engine == "auto":
        engine = "openvino"
    elif "auto" in (precision, engine):
        fast, fast_engine = fastest(device)
        precision = fast if precision == "auto" else precision
        engine = fast_engine if engine == "auto" else engine
    if precision == "int8" and engine != "openvino":
        raise UsageError("--precision int8 is OpenVINO's: leave --engine out")
    without_gpus = device == "cpu" or (
        device == "auto" and not any(m.gpus for m in cluster.machines())
    )
    if precision == "float16" and (without_gpus or engine == "openvino"):
        raise UsageError(
            "float16 is computed on GPUs alone: give --device gpu, or --precision float32"
        )
    if engine == "openvino" and device == "gpu":
        raise UsageError("OpenVINO computes on CPUs here: leave --device gpu out")
    if engine == "openvino" and not hardware.has_openvino():
        raise UsageError("OpenVINO is not installed: pip install 'flowerray[openvino]'")
    return replace(spec, precision=precision, engine=engine)


def fastest(device: str) -> tuple[str, str]:
    """The precision and the engine that `auto` means where a job computes on `device`."""
    machines = cluster.machines()
    on_gpus = device == "gpu" or (device == "auto" and any(m.gpus for m in machines))
    with_gpus = [m for m in machines if m.gpus]
    on_cpus = [] if device == "gpu" else [m for m in machines if not (on_gpus and m.gpus)]
    halves = on_gpus and not all(m.bfloat16_on_gpus for m in with_gpus)
    if on_cpus:  # which compute no float16
        fast = "float32" if halves or not all(m.bfloat16 for m in on_cpus) else "bfloat16"
    else:
        fast = "float16" if halves else "bfloat16"
    # Who names another backend of Keras wants Keras; OpenVINO converts TensorFlow's models alone.
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    converts = all(m.openvino for m in machines) and backend == "tensorflow"
    return (
        fast,
        "openvino" if converts and not on_gpus else "keras",
    )


def with_model(
    output: Output,
    spec: BaseSpec,
    weights: Weights,
    limits: Limits,
    kept_in: Folder,
    head: bytes | None = None,
) -> tuple[Output, BaseSpec, list[np.ndarray]]:
    """What the actors open their engine with: the weights, or what OpenVINO made of them.

    For int8 the base is the quantised one in `kept_in`, made first where `spec` names none yet:
    then the output and the spec that come back name it. With nothing to do there is no model.

    Raises:
        FlowerrayError: the quantised base is lost or another, or no photograph can be read.
    """
    if not output.to_do() or spec.engine != "openvino":
        return output, spec, weights.arrays
    if spec.calibration is not None:
        base = _kept(kept_in, spec.calibration)
    elif spec.precision == "int8":
        sample = _sample(output, CALIBRATION_PHOTOGRAPHS, SEED)
        say(f"int8: calibrating on {len(sample)} of the photographs")
        base = cluster.run_once(_quantised, spec, weights.arrays, sample, limits)
        output.folder.write(QUANTISED, conversion.pack(base))
        spec = replace(spec, calibration=_sha256(base))
        output = shards.with_base_spec(output, spec)
    else:
        base = conversion.base(spec, weights)
    return output, spec, base if head is None else base + conversion.head(head)


def agreement(
    output: Output,
    limits: Limits,
    head: bytes,
    one: tuple[BaseSpec, list[np.ndarray]],
    other: tuple[BaseSpec, list[np.ndarray]],
) -> dict[str, int]:
    """On how many photographs of `output` two ways to compute give the same label: a sample that
    calibration didn't see, where there are enough photographs."""
    # A pile has nothing to validate with, so the first rows drawn are those calibrated on.
    seen = frozenset(_drawn(output, CALIBRATION_PHOTOGRAPHS, SEED)[:CALIBRATION_PHOTOGRAPHS])
    sample = _sample(output, AGREEMENT_PHOTOGRAPHS, SEED + 1, last=seen)
    photographs, same = cluster.run_once(_agreement, sample, limits, head, one, other)
    return {"photographs": photographs, "same": same}


def _quantised(
    spec: BaseSpec, weights: list[np.ndarray], sample: pa.Table, limits: Limits
) -> list[np.ndarray]:
    """A task: the base, converted and quantised."""
    return openvino.convert(spec, weights, _pixels(sample, spec, limits))


def _agreement(
    sample: pa.Table,
    limits: Limits,
    head: bytes,
    one: tuple[BaseSpec, list[np.ndarray]],
    other: tuple[BaseSpec, list[np.ndarray]],
) -> tuple[int, int]:
    """A task: how many photographs of the sample can be read, and how many get the same label."""
    pixels = _pixels(sample, one[0], limits)
    labels = []
    for spec, model in (one, other):
        engine = open_engine(spec, model, cluster.task_cpus(), head)
        batches = [engine(pixels[i : i + 16]) for i in range(0, len(pixels), 16)]
        labels.append(np.concatenate(batches)[:, :-1].argmax(axis=1))  # the last is the novelty
    return len(pixels), int((labels[0] == labels[1]).sum())


def _sample(output: Output, size: int, seed: int, last: frozenset[int] = frozenset()) -> pa.Table:
    """Up to `size` manifest rows drawn by `seed`, those to validate left out; of `last` only where
    there are too few others."""
    tables: list[pa.Table] = []
    for row in sorted(_drawn(output, size, seed), key=lambda row: row in last):
        table = catalog.read_shard(output.folder, output.manifest, Shard(row, 1))
        if len(table) and table["split"][0].as_py() != "valid":  # it may have been retired
            tables.append(table)
        if len(tables) == size:
            break
    return pa.concat_tables(tables)


def _drawn(output: Output, size: int, seed: int) -> list[int]:
    """Four times as many rows as `size`, since some may be left out."""
    rows = output.manifest.end
    drawn = np.random.default_rng(seed).choice(rows, min(rows, 4 * size), replace=False)
    return [int(row) for row in drawn]


def _pixels(sample: pa.Table, spec: BaseSpec, limits: Limits) -> np.ndarray:
    reader = IsolatedReader()  # one that kills its decoder must not end the task, each time
    decoded = [reader(uri, None, spec, limits) for uri in sample["uri"].to_pylist()]
    reader.close()
    readable = [pixels for pixels in decoded if not isinstance(pixels, Rejected)]
    if not readable:
        raise FlowerrayError(f"none of {len(sample)} photographs of the sample can be read")
    return np.stack(readable)


def _sha256(base: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in base)).hexdigest()


def _kept(folder: Folder, calibration: str) -> list[np.ndarray]:
    file = folder.file(QUANTISED)
    try:
        base = conversion.unpack(folder.read(QUANTISED))
    except (OSError, ValueError) as error:
        raise FlowerrayError(f"the quantised base {file} can't be read: {error}") from None
    if _sha256(base) != calibration:
        raise FlowerrayError(f"{file} is not the quantised base that {folder} was made with")
    return base
