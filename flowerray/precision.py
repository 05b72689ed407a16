"""The precision ladder: what `auto` is here, the quantised base of int8, and how labels agree.

float32 computes as Keras does, bfloat16 by the hardware's own instructions, int8 through OpenVINO
on a base that nncf quantised after a sample of the job's own photographs. That base is kept beside
what was made with it, as ``int8.npz``.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa

from flowerray import catalog, cluster, hardware, photographs, shards
from flowerray.bases import BaseSpec
from flowerray.catalog import Shard
from flowerray.engines import open_engine
from flowerray.errors import FlowerrayError, UsageError
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
        UsageError: int8 asked for where it can't be.
    """
    if recorded is not None:
        adopted = replace(
            spec,
            precision=recorded.precision if spec.precision == "auto" else spec.precision,
            engine=recorded.engine if spec.engine == "auto" else spec.engine,
            calibration=spec.calibration or recorded.calibration,
        )
        if adopted == recorded:
            return recorded
    precision, engine = spec.precision, spec.engine
    if engine == "thumbnail":
        return replace(spec, precision="float32")
    if precision == "auto":
        precision = "bfloat16" if cluster.computes_bfloat16(device) else "float32"
    if engine == "auto":
        engine = "openvino" if precision == "int8" else "keras"
    if precision == "int8" and engine != "openvino":
        raise UsageError("--precision int8 is OpenVINO's: leave --engine out")
    if engine == "openvino" and device == "gpu":
        raise UsageError("OpenVINO computes on CPUs here: leave --device gpu out")
    if engine == "openvino" and not hardware.has_openvino():
        raise UsageError("OpenVINO is not installed: pip install 'flowerray[openvino]'")
    return replace(spec, precision=precision, engine=engine)


def with_model(
    output: Output, spec: BaseSpec, weights: Weights, kept_in: Folder, head: bytes | None = None
) -> tuple[Output, BaseSpec, list[np.ndarray]]:
    """What the actors open their engine with: the weights, or what OpenVINO made of them.

    For int8 that is the quantised base in `kept_in`, made first where `spec` names none yet: then
    the output and the spec that come back name it. With nothing to do there is no model.

    Raises:
        FlowerrayError: the quantised base is lost or another, or no photograph can be read.
    """
    if not output.to_do() or spec.engine != "openvino":
        return output, spec, weights.arrays
    base, sample = None, None
    if spec.calibration is not None:
        base = _kept(kept_in, spec.calibration)
    elif spec.precision == "int8":
        sample = _sample(output, CALIBRATION_PHOTOGRAPHS)
        say(f"int8: calibrating on {len(sample)} of the photographs")
    base, model = cluster.run_once(_converted, spec, weights.arrays, base, sample, head)
    if sample is not None:
        spec = replace(spec, calibration=keep(base, output.folder))
        output = shards.with_base_spec(output, spec)
    return output, spec, model


def keep(base: list[np.ndarray], folder: Folder) -> str:
    """Write a quantised base to `folder`; returns its SHA-256."""
    stream = io.BytesIO()
    np.savez(stream, graph=base[0], constants=base[1])
    folder.write(QUANTISED, stream.getbuffer())
    return _sha256(base)


def agreement(
    output: Output,
    head: bytes,
    one: tuple[BaseSpec, list[np.ndarray]],
    other: tuple[BaseSpec, list[np.ndarray]],
) -> dict[str, int]:
    """On how many photographs of `output` two ways to compute give the same label: a sample that
    calibration didn't see, where there are enough photographs."""
    sample = _sample(output, CALIBRATION_PHOTOGRAPHS + AGREEMENT_PHOTOGRAPHS)
    sample = sample.slice(max(0, len(sample) - AGREEMENT_PHOTOGRAPHS))
    photographs, same = cluster.run_once(_agreement, sample, head, one, other)
    return {"photographs": photographs, "same": same}


def _converted(
    spec: BaseSpec,
    weights: list[np.ndarray],
    base: list[np.ndarray] | None,
    sample: pa.Table | None,
    head: bytes | None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A task: the converted base, and what the actors get: that, or with the head on it."""
    from flowerray.engines import openvino

    if base is None:
        base = openvino.convert(spec, weights, None if sample is None else _pixels(sample, spec))
    return base, base if head is None else openvino.with_head(base, head)


def _agreement(
    sample: pa.Table,
    head: bytes,
    one: tuple[BaseSpec, list[np.ndarray]],
    other: tuple[BaseSpec, list[np.ndarray]],
) -> tuple[int, int]:
    """A task: how many photographs of the sample can be read, and how many get the same label."""
    pixels = _pixels(sample, one[0])
    labels = []
    for spec, model in (one, other):
        engine = open_engine(spec, model, cluster.task_cpus(), head)
        batches = [engine(pixels[i : i + 16]) for i in range(0, len(pixels), 16)]
        labels.append(np.concatenate(batches).argmax(axis=1))
    return len(pixels), int((labels[0] == labels[1]).sum())


def _sample(output: Output, size: int) -> pa.Table:
    """Up to `size` manifest rows drawn by SEED, those to validate left out."""
    rows = output.manifest.rows
    drawn = np.random.default_rng(SEED).choice(rows, min(rows, 4 * size), replace=False)
    tables: list[pa.Table] = []
    for row in drawn:
        table = catalog.read_shard(output.folder, output.manifest, Shard(int(row), 1))
        if table["split"][0].as_py() != "valid":
            tables.append(table)
        if len(tables) == size:
            break
    return pa.concat_tables(tables)


def _pixels(sample: pa.Table, spec: BaseSpec) -> np.ndarray:
    decoded = [
        photographs.read_and_decode(uri, None, spec, Limits()) for uri in sample["uri"].to_pylist()
    ]
    readable = [pixels for pixels in decoded if not isinstance(pixels, Rejected)]
    if not readable:
        raise FlowerrayError(f"none of {len(sample)} photographs of the sample can be read")
    return np.stack(readable)


def _sha256(base: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in base)).hexdigest()


def _kept(folder: Folder, calibration: str) -> list[np.ndarray]:
    file = folder.file(QUANTISED)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            base = [arrays["graph"], arrays["constants"]]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FlowerrayError(f"the quantised base {file} can't be read: {error}") from None
    if _sha256(base) != calibration:
        raise FlowerrayError(f"{file} is not the quantised base that {folder} was made with")
    return base
