"""What an encoder makes of black pixels, tried in a process of its own with a deadline: the graph
may be anybody's."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from flowerray.errors import FlowerrayError

SECONDS = 300
MEMORY_BYTES = 8 << 30  # beside four times the file


def onnx_shapes(model: bytes, input: str, shape: list[int], half: bool) -> dict[str, list[int]]:
    """The shape of each output of an ONNX graph, of an input of zeros of this `shape`.

    Raises:
        FlowerrayError: it can't be computed, or not in time.
    """
    asked = (input, json.dumps(shape), "float16" if half else "float32")
    return dict(_probed(model, "onnx", *asked))


def keras_shapes(model: bytes, layer: str | None) -> tuple[list[int | None], list[int | None]]:
    """The shapes of the input of a `.keras` file and of the output of its layer, by default of its
    last; None for what varies.

    Raises:
        FlowerrayError: it can't be loaded, has several inputs or outputs, or no such layer.
    """
    given, made = _probed(model, "keras", *([layer] if layer else []))
    return given, made


def _probed(model: bytes, *how: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
        file = Path(directory) / "model"
        file.write_bytes(model)
        run = [sys.executable, "-m", __name__, str(file), *how]
        try:
            done = subprocess.run(run, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise FlowerrayError(f"it computes one photograph in more than {SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        ended = f"its process ended with {done.returncode}: out of memory, or a damaged file"
        raise FlowerrayError(lines[-1] if lines and done.returncode == 1 else ended)
    return json.loads(done.stdout.splitlines()[-1])


def _limit_memory(file: Path) -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    most = MEMORY_BYTES + 4 * file.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _onnx(file: Path, input: str, shape: str, dtype: str) -> dict[str, list[int]]:
    from flowerray.bases.engines.onnxruntime import session

    opened = session(file.read_bytes(), threads=1)
    names = [one.name for one in opened.get_outputs()]
    made = opened.run(names, {input: np.zeros(json.loads(shape), dtype)})
    return {name: list(np.shape(one)) for name, one in zip(names, made, strict=True)}


def _keras(file: Path, layer: str | None = None) -> list[list[int | None]]:
    from flowerray.bases.engines.keras import import_keras, open_head

    import_keras(1)
    model = open_head(file.read_bytes())
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs")
    output = model.get_layer(layer).output if layer else model.outputs[0]
    return [list(model.inputs[0].shape), list(output.shape)]


if __name__ == "__main__":
    model, kind, *arguments = sys.argv[1:]
    try:
        _limit_memory(Path(model))
        shapes = (_onnx if kind == "onnx" else _keras)(Path(model), *arguments)
        print(json.dumps(shapes))
    except Exception as error:  # whatever the engine makes of a stranger's graph
        sys.exit((str(error).partition("\n")[0] or type(error).__name__)[:300])
