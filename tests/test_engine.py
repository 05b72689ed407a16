import importlib

import numpy as np
import pytest

from flowerray import photographs, weights
from flowerray.bases import BASES, PREPARATIONS, BaseSpec
from flowerray.engines import open_engine
from flowerray.errors import UsageError
from flowerray.photographs import Limits


def spec(preparation="vgg", precision="float32", layer=None):
    return BaseSpec("vgg16", layer, 224, preparation, "-", precision, "keras", "imagenet", "-")


@pytest.fixture(scope="module")
def vgg16():
    return weights.load("vgg16", say=lambda message: None).arrays


@pytest.fixture(scope="module")
def keras_vgg16(vgg16):
    import keras

    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    model.set_weights(vgg16)
    return model


def pixels_of(files):
    return np.stack(
        [photographs.decode(file.read_bytes(), 224, "bilinear-dct", Limits()) for file in files]
    )


@pytest.fixture(scope="module", params=["drawn", "photographed"])
def pixels(request, sample):
    if request.param == "drawn":
        return pixels_of(sorted(sample.labelled.glob("*/*"))[::8])
    flowers = request.getfixturevalue("flower_photos")
    return pixels_of(sorted((flowers / "valid").glob("*/*"))[::20])


@pytest.mark.parametrize("preparation", ["vgg", "article"])
def test_features_equal_keras_own(pixels, preparation, vgg16, keras_vgg16):
    import keras

    prepared = (
        keras.applications.vgg16.preprocess_input(pixels.astype(np.float32))
        if preparation == "vgg"
        else pixels.astype(np.float32) / 255
    )
    expected = np.asarray(keras_vgg16(prepared))
    features = open_engine(spec(preparation), vgg16, threads=2)(pixels)
    assert features.shape == (len(pixels), 7, 7, 512) and features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-3 * np.abs(expected).max()
    assert np.linalg.norm(features - expected) <= 1e-3 * np.linalg.norm(expected)


def test_bfloat16_is_close(pixels, vgg16):
    exact, rounded = (
        open_engine(spec(precision=precision), vgg16, threads=2)(pixels)
        for precision in ("float32", "bfloat16")
    )
    assert np.linalg.norm(rounded - exact) <= 0.02 * np.linalg.norm(exact)


def test_features_of_an_earlier_layer(vgg16, pixels):
    engine = open_engine(spec(layer="block4_pool"), vgg16, threads=2)
    assert engine.feature_shape == (14, 14, 512)
    with pytest.raises(UsageError, match=r"no layer 'block9'.*block5_pool"):
        open_engine(spec(layer="block9"), vgg16, threads=2)


@pytest.mark.parametrize(
    ("preparation", "module"),
    [
        ("vgg", "vgg16"),
        ("vgg", "resnet"),
        ("tf", "inception_v3"),
        ("torch", "densenet"),
        ("none", "efficientnet"),
    ],
)
def test_preparations_are_keras_own(preparation, module):
    rule = PREPARATIONS[preparation]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    ours = (pixels[..., ::-1] if rule.bgr else pixels) * rule.scale + rule.offset
    keras_own = importlib.import_module(f"keras.applications.{module}").preprocess_input
    np.testing.assert_allclose(ours, keras_own(pixels.copy()), atol=1e-4)


def test_every_base_is_one_of_keras():
    import keras

    for base in BASES.values():
        assert base.engine != "keras" or callable(getattr(keras.applications, base.builder))
        assert base.preparation in PREPARATIONS
