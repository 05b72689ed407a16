"""What a user would run instead of flowerray: each way as its own documentation shows it.

    python benchmarks/peers.py WAY PHOTOGRAPHS [--precision float32|bfloat16]

PHOTOGRAPHS is a directory of class folders. Prints {"photographs": n, "seconds": s}, start-up and a
first batch left out where a way lets them be. All compute VGG16's features, 224x224.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np

SIDE = 224
BATCH = 32


def vgg16(precision: str):
    import keras

    from flowerray.bases import weights

    if precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    base.set_weights(weights.load("vgg16").arrays)
    return base


def forward(photographs: Path, precision: str) -> tuple[int, float]:
    """The limit: the forward pass alone, on one ready batch, on every core."""
    import tensorflow as tf

    base = vgg16(precision)
    run = tf.function(lambda pixels: base(pixels, training=False))
    pixels = np.random.default_rng(0).uniform(-120, 150, (BATCH, SIDE, SIDE, 3))
    batch = tf.constant(pixels.astype(np.float32))
    run(batch).numpy()
    started = time.perf_counter()
    rounds = 8
    for _ in range(rounds):
        run(batch).numpy()
    return rounds * BATCH, time.perf_counter() - started


def article_loop(photographs: Path, precision: str) -> tuple[int, float]:
    """The article's loop: Keras' ImageDataGenerator, batches of 25, `predict` on each."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    base = vgg16(precision)
    batches = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        photographs, target_size=(SIDE, SIDE), batch_size=25, shuffle=False
    )
    base.predict(np.zeros((25, SIDE, SIDE, 3), np.float32), verbose=0)
    started = time.perf_counter()
    features = [base.predict(batches[i][0], verbose=0) for i in range(len(batches))]
    return len(np.concatenate(features)), time.perf_counter() - started


def tf_data(photographs: Path, precision: str) -> tuple[int, float]:
    """The Keras guide's way: image_dataset_from_directory, prefetched, and one `predict`."""
    import keras

    base = vgg16(precision)
    dataset = keras.utils.image_dataset_from_directory(
        photographs, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=False, verbose=False
    )
    prepare = keras.applications.vgg16.preprocess_input
    dataset = dataset.map(lambda pixels, label: prepare(pixels), num_parallel_calls=2).prefetch(2)
    base.predict(np.zeros((BATCH, SIDE, SIDE, 3), np.float32), verbose=0)
    started = time.perf_counter()
    features = base.predict(dataset, verbose=0)
    return len(features), time.perf_counter() - started


def ray_data(photographs: Path, precision: str) -> tuple[int, float]:
    """Ray Data's documented batch inference: read_images, map_batches in an actor, write_parquet.
    Its start-up counts, since reading starts before the actor is there."""
    import ray

    class Extract:
        def __init__(self) -> None:
            import keras

            self.base = vgg16(precision)
            self.prepare = keras.applications.vgg16.preprocess_input

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            pixels = self.prepare(batch["image"].astype(np.float32))
            features = np.asarray(self.base.predict_on_batch(pixels), np.float32)
            return {"path": batch["path"], "features": features.reshape(len(features), -1)}

    ray.init("local", logging_level="ERROR", log_to_driver=False)
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        dataset = ray.data.read_images(
            str(photographs), size=(SIDE, SIDE), mode="RGB", include_paths=True
        )
        dataset = dataset.map_batches(
            Extract, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1
        )
        dataset.write_parquet(out)
        seconds = time.perf_counter() - started
        return ray.data.read_parquet(out, columns=["path"]).count(), seconds


def daft_udf(photographs: Path, precision: str) -> tuple[int, float]:
    """Daft: glob, download and decode expressions, a class UDF with the model. Start-up counts."""
    import daft

    @daft.udf(
        return_dtype=daft.DataType.list(daft.DataType.float32()), batch_size=BATCH, concurrency=1
    )
    class Extract:
        def __init__(self) -> None:
            import keras

            self.base = vgg16(precision)
            self.prepare = keras.applications.vgg16.preprocess_input

        def __call__(self, images):
            pixels = self.prepare(np.stack(images.to_pylist()).astype(np.float32))
            features = np.asarray(self.base.predict_on_batch(pixels), np.float32)
            return list(features.reshape(len(features), -1))

    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        frame = daft.from_glob_path(f"{photographs}/*/*")
        image = daft.col("path").download().decode_image(mode="RGB").resize(SIDE, SIDE)
        frame = frame.select("path", Extract(image).alias("features"))
        frame.write_parquet(out)
        seconds = time.perf_counter() - started
        return daft.read_parquet(out).count_rows(), seconds


def decode(photographs: Path, precision: str, side: int = 64) -> tuple[int, float]:
    """The limit of a pipeline that computes nothing: flowerray's reading and decoding, two threads
    a core's worth at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from flowerray.bases import hardware
    from flowerray.bases.spec import BaseSpec
    from flowerray.sources.photographs import Limits, read_and_decode

    spec = BaseSpec("thumbnail", None, side, "none", "bilinear-dct", "", "", "", "")
    files = sorted(str(file) for file in photographs.glob("*/*"))

    def read(file: str) -> np.ndarray:
        return read_and_decode(file, None, spec, Limits())

    with ThreadPoolExecutor(hardware.available_cpus()) as threads:
        started = time.perf_counter()
        done = sum(1 for _ in threads.map(read, files))
        return done, time.perf_counter() - started


def decode_224(photographs: Path, precision: str) -> tuple[int, float]:
    """As `decode`, to the side of most bases."""
    return decode(photographs, precision, SIDE)


OURS = (forward, decode, decode_224)
WAYS = {way.__name__: way for way in (*OURS, article_loop, tf_data, ray_data, daft_udf)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("way", choices=WAYS)
    options.add_argument("photographs", type=Path)
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    chosen = options.parse_args()
    with redirect_stdout(sys.stderr):
        photographs, seconds = WAYS[chosen.way](chosen.photographs, chosen.precision)
    print(json.dumps({"photographs": photographs, "seconds": seconds}))


if __name__ == "__main__":
    main()
