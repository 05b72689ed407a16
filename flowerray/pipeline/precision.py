"""The precision ladder: what a job computes in, and what `auto` is here.

float32 and bfloat16 are computed by Keras and OpenVINO, int8 through OpenVINO, float16 on GPUs.
ONNX bases have ONNX Runtime where others have Keras; it computes in float32, bfloat16 too: finer.
"""

from __future__ import annotations

import os
from dataclasses import replace

from flowerray.bases import hardware
from flowerray.bases.spec import BaseSpec
from flowerray.errors import UsageError
from flowerray.heads.classifier import Classifier
from flowerray.pipeline import tasks
from flowerray.settings import LabelSettings


def settled(spec: BaseSpec, recorded: BaseSpec | None, device: str) -> BaseSpec:
    """`spec` with its precision and engine decided.

    Args:
        spec: its precision may be "auto", its engine "auto".
        recorded: the spec of the output that the job goes on with, which stays if `spec` allows.

    Raises:
        UsageError: int8 or OpenVINO asked for where it can't be.
    """
    if not (spec.own or spec.builder):  # nothing in it that another would gain
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
        fast, fast_engine = fastest(device, spec.is_onnx)
        engine = fast_engine if engine == "auto" else engine
        if precision == "auto":
            precision = "float32" if engine == "onnxruntime" else fast
    _check_engine(spec, engine, precision)
    if precision == "int8" and engine != "openvino":
        raise UsageError("--precision int8 is OpenVINO's: leave --engine out")
    without_gpus = device == "cpu" or (
        device == "auto" and not any(m.gpus for m in tasks.machines())
    )
    if precision == "float16" and (without_gpus or engine == "openvino"):
        raise UsageError(
            "float16 is computed on GPUs alone: give --device gpu, or --precision float32"
        )
    gpus = [m for m in tasks.machines() if m.gpus and device != "cpu"]
    if engine == "onnxruntime" and not all(m.onnx_on_gpus for m in gpus):
        raise UsageError(
            f"{spec.base} is an ONNX file, and ONNX Runtime here is not the one for GPUs: pip "
            "install onnxruntime-gpu in place of onnxruntime, or give --device cpu"
        )
    if engine == "openvino" and device == "gpu":
        raise UsageError("OpenVINO computes on CPUs here: leave --device gpu out")
    if engine == "openvino" and not hardware.has_openvino():
        raise UsageError("OpenVINO is not installed: pip install 'flowerray[openvino]'")
    return replace(spec, precision=precision, engine=engine)


def _check_engine(spec: BaseSpec, engine: str, precision: str) -> None:
    """
    Raises:
        UsageError: the engine can't compute the base of `spec`, or not in this precision.
    """
    if engine == "keras" and spec.is_onnx:
        raise UsageError(f"{spec.base} is an ONNX file: leave --engine keras out")
    if engine == "onnxruntime" and not spec.is_onnx:
        raise UsageError(f"{spec.base} is no ONNX file: leave --engine onnxruntime out")
    if engine == "onnxruntime" and precision == "float16":
        raise UsageError("ONNX Runtime computes in float32 here: leave --precision float16 out")


def fastest(device: str, onnx: bool = False) -> tuple[str, str]:
    """The precision and the engine that `auto` means where a job computes on `device`, of a base
    in an ONNX file or another."""
    machines = tasks.machines()
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
    converts = all(m.openvino for m in machines) and (onnx or backend == "tensorflow")
    if converts and not on_gpus:
        return fast, "openvino"
    return fast, "onnxruntime" if onnx else "keras"


def asked_of(trained: Classifier, settings: LabelSettings) -> BaseSpec:
    """The classifier's own base spec, or one of another precision where that is asked for; either
    engine computes it."""
    spec = trained.base_spec
    same = settings.precision in (None, spec.precision)
    if same and spec.precision == "int8":
        return spec
    precision = settings.precision or spec.precision
    return replace(spec, precision=precision, engine=settings.engine, calibration=None)
