"""Where one starts from: what VGG16 as published says of photographs, in ImageNet's 1,000 classes.

For a handful of photographs, so it runs in this one process, without Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowerray.bases.engines.keras import import_keras
from flowerray.bases.fetched import only_file
from flowerray.bases.spec import PREPARATIONS, base_named
from flowerray.errors import FlowerrayError
from flowerray.outputs import kinds, lease, shards
from flowerray.outputs.schemas import ERROR, LABELS
from flowerray.progress import Progress, say
from flowerray.reports import gallery
from flowerray.settings import BaselineSettings
from flowerray.sources.columns import Columns
from flowerray.sources.listing import photographs_to_label
from flowerray.sources.photographs import Limits, Rejected, decode, read
from flowerray.stores.folder import Folder
from flowerray.version import __version__

KIND = "a baseline"
CLASSES = 1000
BATCH = 8  # photographs in one forward pass: half a gigabyte of activations
# The files as Keras publishes them; the MD5 is the one by which Keras checks its own download.
WEIGHTS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
WEIGHTS_MD5 = "64373286793e3c8b2b4e3219cbf3544b"
NAMES_FILE = "imagenet_class_index.json"
LONGEST_CAPTION = 24  # characters of a class's name below a photograph

SCHEMA = pa.schema([("uri", pa.string()), LABELS.field("top_k"), *ERROR])


@dataclass(frozen=True)
class BaselineSummary:
    """What a baseline says: a row a photograph, as in ``baseline.parquet``; `rejected` counts by
    reason."""

    out: str
    photographs: int
    rejected: dict[str, int]
    rows: list[dict[str, Any]]


def baseline(settings: BaselineSettings) -> BaselineSummary:
    """Ask VGG16, as it is, about ``settings.limit`` photographs of ``settings.images``.

    Writes ``baseline.parquet`` (uri, top_k, error, error_detail) and ``baseline.png`` into
    ``settings.out``.

    Raises:
        FlowerrayError: no photographs; no weights or names, neither downloaded nor in a file;
            something else in ``settings.out``.
    """
    kinds.check_photographs(settings.images)
    with lease.held(_folder(settings.out), KIND) as folder:
        return _baseline(folder, settings)


def _baseline(folder: Folder, settings: BaselineSettings) -> BaselineSummary:
    uris = _spread(settings.images, settings.columns, settings.limit)
    names = _class_names(settings.class_names)
    model, source = _vgg16(settings.weights)
    progress = Progress("baseline", len(uris))
    progress.ready(0)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(uris), BATCH):
        batch = _predicted(model, uris[start : start + BATCH], names, settings)
        progress.add(len(batch), sum(row["error"] is not None for row in batch))
        rows += batch
    progress.finish()
    about = {"kind": "baseline", "weights": source, "flowerray_version": __version__}
    schema = SCHEMA.with_metadata({"flowerray": json.dumps(about)})
    with folder.create("baseline.parquet") as stream:
        pq.write_table(pa.Table.from_pylist(rows, schema), stream, compression="zstd")
    title = f"VGG16, {source}: its own {CLASSES:,} classes, the first {settings.top_k}"
    captions = [(row["uri"], _caption(row)) for row in rows]
    folder.write("baseline.png", gallery.draw(captions, title, settings.limits))
    rejected = Counter(row["error"] for row in rows if row["error"] is not None)
    counts = dict(rejected.most_common())
    shards.check_some_used(len(rows), counts)
    return BaselineSummary(str(folder), len(rows), counts, rows)


def _folder(out: str) -> Folder:
    folder = Folder.at(out)
    there = folder.names(".")
    lease.check_ours(folder, KIND, recorded="baseline.parquet" in there)
    others = there - {"baseline.parquet", "baseline.png", lease.SCRATCH}
    if others:
        raise FlowerrayError(
            f"{folder} holds something else ({min(others)}): choose an empty or new directory"
        )
    return folder


def _spread(images: str, columns: Columns, limit: int) -> list[str]:
    """At most `limit` photographs, evenly through the listing, so that all its folders show."""
    batches = [batch["uri"] for batch in photographs_to_label(images, columns)]
    uris = pa.chunked_array(batches, pa.string())
    places = np.linspace(0, len(uris) - 1, min(limit, len(uris))).round().astype(np.int64)
    return uris.take(pa.array(places)).to_pylist()


def _class_names(file: str | None) -> list[str]:
    """The names of the 1,000 classes, in the order of the model's outputs."""
    if file is None:
        keras = _keras()
        try:
            with _downloading():
                one_each = keras.applications.vgg16.decode_predictions(np.eye(CLASSES), top=1)
        except Exception as error:  # Keras raises a bare Exception where its download fails
            raise FlowerrayError(
                f"no names of ImageNet's classes. Tried Keras' download: {_line(error)}. Hand the "
                f"file in with --class-names FILE (Keras' {NAMES_FILE})"
            ) from None
        return [name for [(_, name, _)] in one_each]
    try:
        index = json.loads(Path(file).read_bytes())
        names = [index[str(i)][1] for i in range(CLASSES)]
    except OSError as error:
        raise FlowerrayError(
            f"class names {file}: {error.strerror}; give Keras' {NAMES_FILE}, or leave "
            "--class-names out to download it"
        ) from None
    except (ValueError, LookupError, TypeError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        raise FlowerrayError(
            f"class names {file}: not Keras' {NAMES_FILE}, an object with the keys "
            f'"0" to "{CLASSES - 1}", each of them [WordNet id, name]'
        )
    return names


def _vgg16(place: str | None) -> tuple[Any, str]:
    """VGG16 with its top, and whose weights it has."""
    try:
        file = None if place is None else only_file(place, ("*.h5", "*.keras"), say)
    except FlowerrayError as error:
        raise FlowerrayError(
            f"weights file {error}; give Keras' {WEIGHTS_FILE} (528 MB), or leave --weights out to "
            "download it"
        ) from None
    keras = _keras()
    if file is None:
        try:
            with _downloading():
                return keras.applications.VGG16(weights="imagenet"), "as published"
        except Exception as error:  # as above
            raise FlowerrayError(
                f"no weights for VGG16 with its top. Tried Keras' download: {_line(error)}. Hand "
                f"the file in with --weights FILE (Keras' {WEIGHTS_FILE}, 528 MB)"
            ) from None
    model = keras.applications.VGG16(weights=None)
    try:
        model.load_weights(file)
        with open(file, "rb") as stream:
            md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    except Exception as error:  # h5py and Keras raise nearly anything on a file of another kind
        raise FlowerrayError(
            f"weights file {file}: {_line(error)}; give Keras' {WEIGHTS_FILE}: VGG16 with its top"
        ) from None
    if md5.hexdigest() != WEIGHTS_MD5:
        say(f"weights file {file} is not the one that Keras publishes: what it says is its own")
        return model, f"weights of {file.name}"
    return model, "as published"


def _keras() -> Any:
    """Keras, without what TensorFlow prints at its start whatever its log level."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        return import_keras(os.cpu_count() or 1)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def _downloading() -> Iterator[None]:
    """Keras' progress goes to stderr, and a firewall that drops packets can't hang it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _predicted(
    model: Any, uris: list[str], names: list[str], settings: BaselineSettings
) -> list[dict[str, Any]]:
    """The rows of a batch."""
    import keras

    outcomes = [_pixels(uri, settings.limits) for uri in uris]
    good = [outcome for outcome in outcomes if not isinstance(outcome, Rejected)]
    probabilities: Iterator[np.ndarray] = iter(())
    if good:
        prepared = keras.applications.vgg16.preprocess_input(np.stack(good).astype(np.float32))
        probabilities = iter(np.asarray(model.predict_on_batch(prepared), np.float32))
    rows: list[dict[str, Any]] = []
    for uri, outcome in zip(uris, outcomes, strict=True):
        if isinstance(outcome, Rejected):
            error = {"error": outcome.reason, "error_detail": outcome.detail}
            rows.append({"uri": uri, "top_k": None, **error})
            continue
        values = next(probabilities)
        best = np.argsort(-values, kind="stable")[: settings.top_k]
        top = [{"label": names[i], "probability": float(values[i])} for i in best]
        rows.append({"uri": uri, "top_k": top, "error": None, "error_detail": None})
    return rows


def _pixels(uri: str, limits: Limits) -> np.ndarray | Rejected:
    base = base_named("vgg16")
    try:
        data = read(uri, None, limits)
        how = PREPARATIONS[base.preparation]
        return decode(data, base.input_size, how.resize, limits, how.colour)
    except Rejected as rejected:
        return rejected


def _caption(row: dict[str, Any]) -> str:
    if row["top_k"] is None:
        return f"not read: {row['error']}"
    names = [top["label"].replace("_", " ") for top in row["top_k"]]
    short = [n if len(n) <= LONGEST_CAPTION else n[: LONGEST_CAPTION - 3] + "..." for n in names]
    return "\n".join(
        f"{top['probability']:.2f} {name}" for top, name in zip(row["top_k"], short, strict=True)
    )


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
