"""A base of the user's own: found, checked, tried, and kept in the cache by its hash."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowerray.bases import fetched
from flowerray.bases.own import keras_file, onnx_file, onnx_graph, preprocessor, probe
from flowerray.bases.own.preprocessor import Pixels
from flowerray.bases.spec import BASES, PREPARATIONS, BaseSpec, OwnBase
from flowerray.errors import FlowerrayError, UsageError
from flowerray.progress import say
from flowerray.stores import is_remote
from flowerray.stores.credentials import bare
from flowerray.stores.folder import refused

ENDINGS = (".onnx", ".keras")
DATA = ("_data", ".data")  # what exporters add to the name of a model for its external data
MODELS = ("model.onnx", "onnx/model.onnx", "model.keras")  # in a directory, the first that is there
NO_PIXELS = (
    f"no {preprocessor.FILE} beside it says how pixels are prepared: give --preparation torch "
    "(or vgg, tf, none, ...)"
)


@dataclass(frozen=True)
class Model:
    """A model as data: its `name`, format ("onnx" or "keras"), SHA-256, and what an engine opens
    (see ``flowerray.bases.prepared``)."""

    name: str
    file: Path
    format: str
    sha256: str
    arrays: list[np.ndarray]
    onnx: onnx_file.OnnxFile | None = None


def is_own(base: str) -> bool:
    """Whether `base` is a place, not the name of a base that flowerray knows."""
    if base in BASES:
        return False
    return base.endswith(ENDINGS) or "/" in base or os.sep in base or Path(base).is_dir()


def name_of(place: str) -> str:
    """What the model at `place` is called.

    Raises:
        FlowerrayError: there is none, or several.
    """
    return _name(_model_in(_here(place)), place)


def read(place: str) -> Model:
    """The model in the file or the directory at `place`, a path or an address, checked; nothing of
    it was computed.

    Raises:
        FlowerrayError: there is none, or several, or one that is refused.
    """
    file = _model_in(_here(place))
    name = _name(file, place)
    if file.suffix == ".onnx":
        found = onnx_file.read(file)
        whole = np.frombuffer(found.model.SerializeToString(), np.uint8)
        return Model(name, file, "onnx", found.sha256, [whole], found)
    try:
        data = file.read_bytes()
        keras_file.check(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise FlowerrayError(f"{file}: {reason}") from None
    arrays = [np.frombuffer(data, np.uint8)]
    return Model(name, file, "keras", hashlib.sha256(data).hexdigest(), arrays)


def spec_of(model: Model, asked: BaseSpec) -> BaseSpec:
    """The spec of features by `model`: what is `asked` for, with what the model and what lies
    beside it say. The model is tried on black pixels for the shape of what it makes.

    Args:
        asked: `preparation` is a key of ``PREPARATIONS``, or "" for what lies beside; `pool` is
            None for the map whole.
    Raises:
        FlowerrayError: the parts don't fit each other, or it can't be computed.
        UsageError: it has no output of the layer, or the pool needs another.
    """
    pixels = _pixels_of(model, asked.preparation)
    try:
        if model.onnx is None:
            side, shape = _keras_output(model, asked.layer, pixels.size)
        else:
            side, shape = _onnx_output(model.onnx, model.arrays, asked, pixels.size)
    except UsageError:
        raise
    except FlowerrayError as error:
        raise FlowerrayError(f"{model.file}: {error}") from None
    tokens = None
    if len(shape) == 2:
        # Tokens that fill a square are all of places; one more is the class token.
        tokens = "avg" if math.isqrt(shape[0]) ** 2 == shape[0] else "cls"
    rank = 1 + len(shape)
    return replace(
        asked,
        base=model.name,
        input_size=side,
        preparation=asked.preparation or "own",
        resize=pixels.resize,
        crop=pixels.crop,
        weights="file",
        weights_sha256=model.sha256,
        own=OwnBase(model.format, pixels.bgr, pixels.scale, pixels.offset, rank, tokens),
    )


def found_again(spec: BaseSpec, place: str | None, cache: Path) -> Model:
    """The model that features of `spec` were made with, at `place` or, without one, in the cache.

    Raises:
        FlowerrayError: it isn't there, or is another.
    """
    assert spec.own is not None
    kept = _kept(spec.weights_sha256, cache)
    if place is None and not kept.is_dir():
        raise FlowerrayError(
            f"the base {spec.base} (sha256 {spec.weights_sha256[:12]}...) is not on this machine: "
            f"give its {spec.own.format} file or directory with --weights"
        )
    model = read(str(kept) if place is None else place)
    if model.sha256 != spec.weights_sha256:
        raise FlowerrayError(
            f"{model.file} is not the base {spec.base} that the features were made with (sha256 "
            f"{model.sha256[:12]}..., not {spec.weights_sha256[:12]}...): give that with --weights"
        )
    return model


def keep(model: Model, cache: Path) -> None:
    """Have `found_again` find `model` in the cache.

    Raises:
        FlowerrayError: the cache can't be written.
    """
    kept = _kept(model.sha256, cache)
    if kept.is_dir():
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            pending = Path(directory) / "base"
            pending.mkdir()
            shutil.copyfile(model.file, pending / f"model.{model.format}")
            for location in model.onnx.external if model.onnx else ():
                (pending / location).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model.file.parent / location, pending / location)
            with suppress(FileExistsError):  # another job was faster
                pending.rename(kept)
    except OSError as error:
        if not kept.is_dir():
            raise refused(kept, error) from error


def _kept(sha256: str, cache: Path) -> Path:
    return cache / "bases" / sha256


def _here(place: str) -> Path:
    """The file or the directory at `place`, fetched with what belongs to it where that is an
    address."""
    if not is_remote(place):
        return Path(place).expanduser()
    directory, _, name = bare(place).rstrip("/").rpartition("/")
    if not name.endswith(ENDINGS):
        return fetched.local(place, [preprocessor.FILE, *_with_data(MODELS)], say)
    if directory.endswith("/onnx"):  # what belongs to it lies above
        directory, name = directory.removesuffix("/onnx"), f"onnx/{name}"
    return fetched.local(directory, [preprocessor.FILE, *_with_data([name])], say) / name


def _with_data(models: Iterable[str]) -> list[str]:
    return [model + end for model in models for end in ("", *DATA)]


def _model_in(place: Path) -> Path:
    if not place.exists():
        raise FlowerrayError(
            f"{place}: no such base: give a file, a directory, or a name that "
            "`flowerray bases` lists"
        )
    if not place.is_dir():
        if place.suffix not in ENDINGS:
            raise FlowerrayError(f"{place} is no base: give a .onnx or a .keras file")
        return place
    for name in MODELS:
        if (place / name).is_file():
            return place / name
    there = sorted(p for p in place.iterdir() if p.suffix in ENDINGS and p.is_file())
    if len(there) == 1:
        return there[0]
    names = ", ".join(p.name for p in there[:5])
    raise FlowerrayError(
        f"{place} holds {names}: name one"
        if there
        else f"{place} has no model.onnx (nor onnx/model.onnx, nor a .keras): it is no base"
    )


def _name(file: Path, place: str) -> str:
    """The file's own; of a `model.onnx` its directory's."""
    if file.stem != "model":
        return file.stem
    if is_remote(place):
        parts = bare(place).rstrip("/").removesuffix(file.name).rstrip("/").split("/")
        return (parts[-2] if parts[-1] == "onnx" else parts[-1]).partition("@")[0]
    for part in reversed(file.absolute().parts[:-1]):
        if part.startswith("models--"):  # as a Hugging Face cache names them
            return part.rpartition("--")[2]
    parent = file.absolute().parent
    return parent.parent.name if parent.name == "onnx" else parent.name


def _pixels_of(model: Model, preparation: str) -> Pixels:
    if preparation:
        how = PREPARATIONS[preparation]
        return Pixels(None, how.resize, None, how.bgr, how.scale, how.offset)
    beside, above = model.file.parent, model.file.parent.parent
    for directory in [beside, above] if beside.name == "onnx" else [beside]:
        if (directory / preprocessor.FILE).is_file():
            return preprocessor.read(directory / preprocessor.FILE)
    raise FlowerrayError(f"{model.file}: {NO_PIXELS}")


def _onnx_output(
    onnx: onnx_file.OnnxFile, arrays: list[np.ndarray], asked: BaseSpec, side: int | None
) -> tuple[int, list[int]]:
    """The side of the pixels, and the shape of the output for one photograph."""
    output = onnx_graph.output_named(onnx, asked.layer)
    side = _agreed(onnx.side, side)
    batch = onnx.batch or 2
    sides = [3, side, side] if onnx.channels_first else [side, side, 3]
    shapes = probe.onnx_shapes(arrays[0].tobytes(), onnx.input, [batch, *sides], onnx.half)
    first, *shape = shapes[output] or [0]
    if len(shape) not in (1, 2, 3) or first != batch or 0 in shape:
        raise FlowerrayError(
            f"its output {output} is {shapes[output]} for {batch} photographs: neither a map, "
            f"tokens, nor a vector of each; of {', '.join(shapes)} name one with --layer"
        )
    onnx_graph.check_pool(asked.pool, 1 + len(shape))
    return side, shape


def _keras_output(model: Model, layer: str | None, side: int | None) -> tuple[int, list[int]]:
    """As `_onnx_output`."""
    of_input, of_output = probe.keras_shapes(model.arrays[0].tobytes(), layer)
    if len(of_input) != 4 or of_input[3] not in (3, None) or of_input[1] != of_input[2]:
        raise FlowerrayError(f"its input is {of_input}, no square photographs of three colours")
    shape = of_output[1:]
    if len(shape) not in (1, 2, 3) or (len(shape) == 2 and shape[0] is None):
        raise FlowerrayError(f"its output is {of_output}: neither a map, tokens, nor a vector")
    return _agreed(of_input[1], side), [one or 1 for one in shape]


def _agreed(fixed: int | None, said: int | None) -> int:
    if fixed and said and fixed != said:
        raise FlowerrayError(
            f"it takes {fixed}x{fixed} pixels, its {preprocessor.FILE} makes {said}x{said}"
        )
    if not (fixed or said):
        raise FlowerrayError(
            f"neither it nor a {preprocessor.FILE} says how large its pixels are: export it with "
            "a fixed height and width"
        )
    return fixed or said or 0
