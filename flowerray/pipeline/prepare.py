"""Making the prepared base: converted for OpenVINO, quantised for int8, compared with another.

The base of int8 is quantised after a sample of the job's own photographs, and kept beside what was
made with it, as ``int8.npz``.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa

from flowerray.bases import weights as pretrained
from flowerray.bases.engines import openvino
from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.bases.spec import BaseSpec
from flowerray.bases.weights import Weights
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads.classifier import Classifier
from flowerray.heads.prepared import PreparedHead
from flowerray.outputs.manifest import Shard, rows_of
from flowerray.outputs.record import Output, with_base_spec, with_record
from flowerray.pipeline import conversion, tasks
from flowerray.pipeline.precision import asked_of, settled
from flowerray.progress import say
from flowerray.settings import LabelSettings
from flowerray.sources.isolated import IsolatedReader
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder

QUANTISED = "int8.npz"
CALIBRATION_PHOTOGRAPHS = 128
AGREEMENT_PHOTOGRAPHS = 128
SEED = 0


def prepared(
    output: Output,
    spec: BaseSpec,
    weights: Weights,
    limits: Limits,
    kept_in: Folder,
) -> tuple[Output, PreparedBase]:
    """The base of `spec`, ready for actors.

    For int8 the base is the quantised one in `kept_in`, made first where `spec` names none yet:
    then the output and the spec that come back name it.

    Raises:
        FlowerrayError: the quantised base is lost or another, or no photograph can be read.
    """
    if not output.to_do() or spec.engine != "openvino":
        return output, PreparedBase(spec, weights.arrays)
    if spec.calibration is not None:
        base = quantised_in(kept_in, spec.calibration)
    elif spec.precision == "int8":
        sample = _sample(output, CALIBRATION_PHOTOGRAPHS, SEED)
        say(f"int8: calibrating on {len(sample)} of the photographs")
        base = tasks.run_once(_quantised, spec, weights.arrays, sample, limits)
        output.folder.write(QUANTISED, conversion.pack(base))
        spec = replace(spec, calibration=_sha256(base))
        output = with_base_spec(output, spec)
    else:
        base = conversion.base(spec, weights)
    return output, PreparedBase(spec, base)


def prepared_head(
    trained: Classifier, spec: BaseSpec, run: conversion.Run | None = None
) -> PreparedHead:
    """The head of a classifier, ready for actors that compute the base of `spec`."""
    if trained.base is not None:
        return PreparedHead(onnx=trained.head)
    if trained.dense is not None:
        return PreparedHead(dense=trained.dense)
    if spec.engine == "openvino":
        converted = conversion.head(trained.head, run)
        return PreparedHead(converted=converted, precision=spec.precision)
    return PreparedHead(keras=trained.head)


def weights_of(trained: Classifier, weights: str) -> Weights:
    """The weights that a classifier's features are made with: a package's own graph, or those of
    its base, see ``flowerray.bases.weights.checked``.

    Raises:
        UsageError: `weights` names some where a package has its own.
        FlowerrayError: `weights` gives others than the classifier's.
    """
    if trained.base is None:
        return pretrained.checked(trained.base_spec, weights, say)
    if weights != "imagenet":
        raise UsageError("a package has its weights in it: leave --weights out")
    graph = np.frombuffer(trained.base, np.uint8)
    return Weights([graph], trained.base_spec.weights_sha256, "the package")


def prepared_to_label(
    output: Output,
    spec: BaseSpec,
    trained: Classifier,
    weights: Weights,
    settings: LabelSettings,
) -> tuple[Output, PreparedBase, PreparedHead]:
    """As `prepared`, of a classifier's base and with its head; at another precision than the
    classifier's own, with the measured agreement of the labels in the output's record."""
    beside, limits = Folder.at(settings.classifier), settings.limits
    own = asked_of(trained, replace(settings, precision=None, engine="auto"))
    # Agreement is computed in one task, which may be of another device than the labels.
    device = {"int8": "cpu", "float16": "gpu"}.get(own.precision, settings.device)
    own = settled(own, None, device)
    same = spec.precision == own.precision
    kept_in = beside if same else output.folder
    output, base = prepared(output, spec, weights, limits, kept_in)
    head = prepared_head(trained, spec) if output.to_do() else PreparedHead()
    if not same and output.to_do() and "agreement" not in output.run:
        _, owns = prepared(output, own, weights, limits, beside)
        agreed = agreement(output, limits, (owns, prepared_head(trained, own)), (base, head))
        output = with_record(output, agreement=agreed)
        say(
            f"label: {spec.precision} gives the label of the classifier's {own.precision} for "
            f"{agreed['same']} of {agreed['photographs']} photographs"
        )
    return output, base, head


Way = tuple[PreparedBase, PreparedHead]  # to compute labels


def agreement(output: Output, limits: Limits, one: Way, other: Way) -> dict[str, int]:
    """On how many photographs of `output` two ways to compute give the same label: a sample that
    calibration didn't see, where there are enough photographs."""
    # A pile has nothing to validate with, so the first rows drawn are those calibrated on.
    seen = frozenset(_drawn(output, CALIBRATION_PHOTOGRAPHS, SEED)[:CALIBRATION_PHOTOGRAPHS])
    sample = _sample(output, AGREEMENT_PHOTOGRAPHS, SEED + 1, last=seen)
    photographs, same = tasks.run_once(_agreement, sample, limits, one, other)
    return {"photographs": photographs, "same": same}


def _quantised(
    spec: BaseSpec, weights: list[np.ndarray], sample: pa.Table, limits: Limits
) -> list[np.ndarray]:
    """A task: the base, converted and quantised."""
    return openvino.convert(spec, weights, _pixels(sample, spec, limits))


def _agreement(sample: pa.Table, limits: Limits, one: Way, other: Way) -> tuple[int, int]:
    """A task: how many photographs of the sample can be read, and how many get the same label."""
    pixels, cpus = _pixels(sample, one[0].spec, limits), tasks.task_cpus()
    labels = []
    for base, with_head in (one, other):
        engine, head = base.open(cpus), with_head.open(cpus)
        batches = [head(as_stored(engine(pixels[i : i + 16]))) for i in range(0, len(pixels), 16)]
        labels.append(np.concatenate(batches)[:, :-1].argmax(axis=1))  # the last is the novelty
    return len(pixels), int((labels[0] == labels[1]).sum())


def _sample(output: Output, size: int, seed: int, last: frozenset[int] = frozenset()) -> pa.Table:
    """Up to `size` manifest rows drawn by `seed`, those to validate left out; of `last` only where
    there are too few others."""
    tables: list[pa.Table] = []
    for row in sorted(_drawn(output, size, seed), key=lambda row: row in last):
        table = rows_of(output.folder, output.manifest, Shard(row, 1))
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


def quantised_in(folder: Folder, calibration: str) -> list[np.ndarray]:
    """The quantised base that lies in `folder`, whose SHA-256 is `calibration`.

    Raises:
        FlowerrayError: it is lost or another.
    """
    file = folder.file(QUANTISED)
    try:
        base = conversion.unpack(folder.read(QUANTISED))
    except (OSError, ValueError) as error:
        raise FlowerrayError(f"the quantised base {file} can't be read: {error}") from None
    if _sha256(base) != calibration:
        raise FlowerrayError(f"{file} is not the quantised base that {folder} was made with")
    return base
