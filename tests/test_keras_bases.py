"""Bases of keras.applications that nothing else here computes: their features are Keras' own."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import SHARED
from sklearn.linear_model import LogisticRegression

from flowerray.bases import weights
from flowerray.bases.engines import openvino
from flowerray.bases.prepared import PreparedBase
from flowerray.bases.spec import BASES, BaseSpec
from flowerray.sources import photographs
from flowerray.sources.photographs import Limits

pytestmark = pytest.mark.slow

# Each with a file that Keras writes its weights to, in another form.
MADE = {
    "vgg19": ("vgg19", "VGG19", "base.weights.h5"),
    "resnet50": ("resnet50", "ResNet50", "base.h5"),
    "inceptionv3": ("inception_v3", "InceptionV3", "base.keras"),
}


def drawn(model, prepared):
    """Give `model` random weights that let no layer's input fade or explode, as trained ones do:
    its batch normalisations have the statistics of these photographs."""
    import keras

    chance, arrays = np.random.default_rng(0), []
    for variable in model.weights:
        shape = variable.shape
        if variable.name == "kernel":
            arrays.append(chance.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))
        else:
            low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.1, 0.1)
            arrays.append(chance.uniform(low, high, shape))
    model.set_weights(arrays)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(prepared, training=True)


@pytest.fixture(scope="module", params=MADE)
def made(request, tmp_path_factory, sample):
    """A base: its spec and its weights, read from the file that Keras wrote; the pixels of
    photographs, their classes, and the features that Keras makes of them."""
    import keras

    module, builder, name = MADE[request.param]
    side = BASES[request.param].input_size
    photographs_there = SHARED / "flower_photos" / "valid"
    where = photographs_there if photographs_there.is_dir() else sample.labelled
    files = [file for folder in sorted(where.iterdir()) for file in sorted(folder.iterdir())[:4]]
    decoded = [photographs.decode(f.read_bytes(), side, "bilinear-dct", Limits()) for f in files]
    pixels, labels = np.stack(decoded), np.array([f.parent.name for f in files])
    prepared = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    application = getattr(keras.applications, builder)
    model = application(weights=None, include_top=False, input_shape=(side, side, 3))
    drawn(model, prepared)
    file = tmp_path_factory.mktemp("written") / name
    (model.save_weights if name.endswith(".weights.h5") else model.save)(file)
    expected = np.asarray(model(prepared))
    found = weights.load(request.param, str(file), lambda message: None)
    preparation = BASES[request.param].preparation
    spec = BaseSpec(
        *(request.param, None, side, preparation, "-", "float32", "keras", "imagenet"), found.sha256
    )
    return spec, found.arrays, pixels, labels, expected


def features(made, **fields):
    spec, arrays, pixels, *_ = made
    spec = replace(spec, **fields)
    if spec.engine == "openvino":
        pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
        arrays = openvino.convert(spec, arrays, None)
    return PreparedBase(spec, arrays).open(threads=2)(pixels)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_features_are_keras_own(made, engine):
    expected = made[-1]
    found = features(made, engine=engine)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert 0.1 < np.abs(expected).max() < 1000
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


def test_in_bfloat16_the_labels_are_alike(made):
    labels = made[-2]
    exact, rounded = (
        features(made, engine="openvino", pool="embedding", precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact, rounded)
    spread = exact.std(axis=0).max()
    head = LogisticRegression(C=1e3, max_iter=1000).fit(exact / spread, labels)
    assert len(set(labels)) > 1
    np.testing.assert_array_equal(head.predict(rounded / spread), head.predict(exact / spread))
