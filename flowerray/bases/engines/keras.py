"""Bases as Keras models, on whichever backend Keras runs: TensorFlow, JAX or PyTorch."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from typing import Any

import numpy as np

from flowerray.bases import efficientnet_lite
from flowerray.bases.own.onnx_graph import check_pool
from flowerray.bases.spec import BaseSpec
from flowerray.errors import UsageError

BACKENDS = ("tensorflow", "jax", "torch")
# IMAGENET_STDDEV_RGB of keras.applications.efficientnet.
EFFICIENTNET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class KerasEngine:
    """A Keras base and its preparation in one graph, from uint8 pixels on."""

    def __init__(self, spec: BaseSpec, weights: list[np.ndarray], threads: int) -> None:
        keras = import_keras(threads)
        model = build(spec, weights)
        self.feature_shape = tuple(model.output_shape[1:])
        # On a CPU Keras may pick XLA by itself, which is slower than oneDNN for convolutions.
        model.compile(jit_compile="auto" if on_accelerator(keras) else False)
        self._model = model

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict_on_batch(pixels), np.float32)


class KerasHead:
    """A ``head.keras``: features float16 (n, *feature_shape) to what the head makes of them."""

    def __init__(self, head: bytes, threads: int) -> None:
        keras = import_keras(threads)
        self._model = open_head(head)
        self._model.compile(jit_compile="auto" if on_accelerator(keras) else False)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict_on_batch(features.astype(np.float32)), np.float32)


def build(spec: BaseSpec, weights: list[np.ndarray]) -> Any:
    """The Keras model of `spec`: uint8 (n, size, size, 3) to float32 features.

    Raises:
        UsageError: the base has no layer of the spec's name, or no map to average.
    """
    import keras

    size, preparation = spec.input_size, spec.pixels
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_policy(spec))
    try:
        base = _pretrained(spec, weights)
        base.trainable = False
        if spec.layer is not None:
            base = keras.Model(base.input, _layer(base, spec).output)
        pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
        channels = keras.ops.flip(pixels, -1) if preparation.bgr else pixels
        # Prepared in float32: bfloat16 would round the means away.
        scale, offset = list(preparation.scale), list(preparation.offset)
        prepared = keras.layers.Rescaling(scale, offset, dtype="float32")(channels)
        features = keras.layers.Activation("linear", dtype="float32")(base(prepared))
        if spec.own is not None and len(features.shape) < 4:
            features = _of_tokens(features, spec)
        elif spec.pool == "embedding":
            features = embedding(features)
        elif spec.pool == "avg":
            if len(features.shape) != 4:
                raise UsageError(
                    f"features of {spec.base} are no map: --pool avg can't average them"
                )
            features = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
        elif spec.pool == "cls":
            raise UsageError(f"features of {spec.base} are no tokens: --pool cls can't take one")
        return keras.Model(pixels, features, name=spec.base)
    finally:
        keras.config.set_dtype_policy(before)


def embedding(features: Any) -> Any:
    """Features float32 (n, *shape, channels) as one vector (n, channels) of unit length.

    Softsign, x / (1 + |x|), in units of the photograph's own mean activation (zeros aside: VGG16's
    are nine tenths zeros), keeps a few strong activations from speaking for the whole photograph;
    then the mean over the map. Nothing in it is learned, so it is the same for every set of
    photographs. On VGG16's features of 1,650 photographs of three flowers heads err on it as often
    as on one whose unit is the mean of all photographs: 156 in both, cross-validated.
    """
    import keras

    ops, inner = keras.ops, tuple(range(1, len(features.shape)))
    size = ops.abs(features)
    active = ops.sum(ops.cast(size > 0, "float32"), axis=inner, keepdims=True)
    unit = ops.sum(size, axis=inner, keepdims=True) / ops.maximum(active, 1.0)
    softened = features / (size + ops.maximum(unit, 1e-12))
    if len(inner) > 1:
        softened = ops.mean(softened, axis=inner[:-1])
    return keras.layers.UnitNormalization(dtype="float32")(softened)


def _of_tokens(features: Any, spec: BaseSpec) -> Any:
    """What the spec's `pool` makes of tokens (n, tokens, width) or vectors (n, width), as
    ``flowerray.bases.own.onnx_graph`` does."""
    import keras

    rank = len(features.shape)
    check_pool(spec.pool, rank)
    assert spec.own is not None
    way = spec.own.tokens if spec.pool == "embedding" and rank == 3 else spec.pool
    if way == "avg":
        features = keras.layers.GlobalAveragePooling1D(dtype="float32")(features)
    if way == "cls":
        features = features[:, 0]
    if spec.pool == "embedding":
        features = keras.layers.UnitNormalization(dtype="float32")(features)
    return features


def layers_after(spec: BaseSpec, weights: list[np.ndarray]) -> Any:
    """The Keras model of the base's layers after the spec's: from its features to the base's end,
    in the spec's precision.

    Raises:
        UsageError: the spec names no layer, averages its features, or a way around the layer leads
            from before it to behind it.
    """
    import keras

    check_layers_left(spec)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_policy(spec))
    try:
        base = _pretrained(spec, weights)
        return keras.Model(_layer(base, spec).output, base.output)
    except ValueError:
        raise UsageError(
            f"{spec.base} has a way around {spec.layer}: choose a layer that all others meet in"
        ) from None
    finally:
        keras.config.set_dtype_policy(before)


def check_layers_left(spec: BaseSpec) -> None:
    """
    Raises:
        UsageError: the features of `spec` are the base's last, or averaged: nothing can follow.
    """
    if spec.layer is None or spec.pool is not None:
        raise UsageError(
            "--recipe finetune learns the layers after the features: extract them with --layer "
            "(for vgg16 block4_pool) and --pool none"
        )


def _policy(spec: BaseSpec) -> str:
    mixed = spec.precision in ("bfloat16", "float16")
    return f"mixed_{spec.precision}" if mixed else "float32"


def _pretrained(spec: BaseSpec, weights: list[np.ndarray]) -> Any:
    import keras

    if spec.own is not None:
        model, policy = open_head(weights[0].tobytes()), _policy(spec)
        return model if policy == "float32" else copied(model, policy)
    size, builder = spec.input_size, spec.builder
    if not builder:
        return _thumbnail(size)
    base = network(builder, (size, size, 3))
    base.set_weights(weights)
    for layer in base.layers if spec.preparation == "efficientnet" else ():
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            # It has its numbers among the weights. For the published ones Keras adds a layer that
            # divides by the root of these, too; so does a larger variance.
            layer.adapt_variance.assign(layer.adapt_variance * EFFICIENTNET_DEVIATION)
            layer.finalize_state()
    return base


def copied(model: Any, policy: str) -> Any:
    """A copy of `model`, without its optimizer, whose layers compute by Keras' dtype `policy`."""
    import keras

    def layer_of(layer: Any) -> Any:
        config = layer.get_config()
        if "dtype" in config:  # an operation between layers has none
            config["dtype"] = policy
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=layer_of, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def network(
    builder: str, input_shape: tuple[int, ...] | None = None, weights: str | None = None
) -> Any:
    """The Keras model that the `builder` of a base makes, without its top; with random weights, or
    with Keras' own "imagenet"."""
    import keras

    if builder in efficientnet_lite.SCALES:
        return efficientnet_lite.build(builder, input_shape)
    application = getattr(keras.applications, builder)
    return application(weights=weights, include_top=False, input_shape=input_shape)


def _thumbnail(size: int) -> Any:
    """No network: the mean colours of an 8x8 grid, in [0, 1]: features (n, 192). What a head can do
    with these needs no pretrained base, so it is the baseline to beat; and they cost next to
    nothing, so the rest of a job shows in benchmarks and tests."""
    import keras

    pixels, cell = keras.Input((size, size, 3)), size // 8
    # Two sums over reshaped rows: a pooling layer takes five times as long on a CPU.
    rows = keras.ops.mean(keras.ops.reshape(pixels, (-1, 8, cell, size * 3)), axis=2)
    means = keras.ops.mean(keras.ops.reshape(rows, (-1, 8, 8, cell, 3)), axis=3)
    return keras.Model(pixels, keras.ops.reshape(means, (-1, 192)) / 255)


def _layer(base: Any, spec: BaseSpec) -> Any:
    names = [layer.name for layer in base.layers]
    if spec.layer not in names:
        raise UsageError(
            f"{spec.base} has no layer {spec.layer!r}; its last are {', '.join(names[-6:])}"
        )
    return base.get_layer(spec.layer)


def open_head(head: bytes, compile: bool = False) -> Any:
    """The Keras model in `head`, loaded in Keras' safe mode; with `compile`, ready to train on."""
    import keras

    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        file.write(head)
        file.flush()
        return keras.saving.load_model(file.name, compile=compile, safe_mode=True)


def import_keras(threads: int) -> Any:
    """Keras, with its backend held to `threads` CPU threads; call it before any other use.

    TensorFlow takes every core of the machine unless told, in each actor.

    Raises:
        UsageError: the backend asked for isn't installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # What ~/.keras/keras.json holds is other projects': a backend that may not be installed here,
    # channels first, halves. Only who sets the variable asks this job for another backend.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    backend = os.environ["KERAS_BACKEND"]
    if backend not in BACKENDS or find_spec(backend) is None:
        raise UsageError(
            f"KERAS_BACKEND is {backend}, which is no backend of Keras that is installed: unset it "
            f"or install one of {', '.join(BACKENDS)}"
        )
    import keras

    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Else a GPU would round what is called float32 to the ten bits of TF32.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            pass  # this process has computed already; its threads stay as they are
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    elif keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    return keras


def on_accelerator(keras: Any) -> bool:
    """Whether Keras' backend sees a GPU or TPU."""
    if keras.backend.backend() == "torch":  # for which Keras lists none
        import torch

        return torch.cuda.is_available()
    devices = keras.distribution.list_devices()
    return any(not device.startswith("cpu") for device in devices)
