import importlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from torch_reference import REFERENCE, SIDES, drawn, parts

import flowerray
from flowerray.bases import efficientnet_lite, hardware, weights
from flowerray.bases.engines import openvino
from flowerray.bases.engines.keras import layers_after, network, open_head
from flowerray.bases.prepared import PreparedBase, as_stored
from flowerray.bases.spec import BASES, PREPARATIONS, BaseSpec
from flowerray.errors import UsageError
from flowerray.heads import classifier
from flowerray.heads.classifier import head_bytes
from flowerray.heads.dense_head import DenseHead
from flowerray.heads.models import without_optimizer
from flowerray.heads.prepared import PreparedHead
from flowerray.pipeline import conversion
from flowerray.sources import photographs
from flowerray.sources.photographs import Limits

pytestmark = pytest.mark.slow


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
    features = PreparedBase(spec(preparation), vgg16).open(threads=2)(pixels)
    assert features.shape == (len(pixels), 7, 7, 512) and features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-3 * np.abs(expected).max()
    assert np.linalg.norm(features - expected) <= 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_averaged_features_are_the_mean_of_the_map(pixels, vgg16, engine):
    pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
    whole, averaged = (
        opened(replace(spec(), engine=engine, pool=pool), vgg16)(pixels) for pool in (None, "avg")
    )
    assert averaged.shape == (len(pixels), 512)
    np.testing.assert_allclose(averaged, whole.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4)


def opened(spec, weights, calibration=None):
    if spec.engine == "openvino":
        weights = openvino.convert(spec, weights, calibration)
    return PreparedBase(spec, weights).open(threads=2)


def test_openvino_computes_what_keras_does(pixels, vgg16):
    pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
    expected = opened(spec(), vgg16)(pixels)
    features = opened(replace(spec(), engine="openvino"), vgg16)(pixels)
    assert features.shape == expected.shape and features.dtype == np.float32
    assert np.linalg.norm(features - expected) <= 1e-3 * np.linalg.norm(expected)


def test_int8_is_close(pixels, vgg16):
    pytest.importorskip("nncf", reason="flowerray[openvino] is not installed")
    exact = opened(spec(), vgg16)(pixels)
    engine = opened(replace(spec(precision="int8"), engine="openvino"), vgg16, pixels)
    rounded = engine(pixels)
    cosine = (exact * rounded).sum() / np.linalg.norm(exact) / np.linalg.norm(rounded)
    assert cosine >= 0.99


def test_a_head_on_the_base_is_the_head_on_its_features(pixels, vgg16):
    import keras

    keras.utils.set_random_seed(0)
    features = keras.Input((7, 7, 512))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    head = keras.Model(features, keras.layers.Dense(3, activation="softmax")(pooled))
    stored = as_stored(PreparedBase(spec(), vgg16).open(threads=2)(pixels))
    expected = np.asarray(head(stored.astype(np.float32)))
    told = PreparedHead(keras=head_bytes(head)).open(threads=2)(stored)
    np.testing.assert_allclose(told, expected, atol=1e-4)
    if hardware.has_openvino():
        converted = openvino.convert_head(head_bytes(head))
        told = PreparedHead(converted=converted).open(threads=2)(stored)
        np.testing.assert_allclose(told, expected, atol=1e-4)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_an_embedding_is_what_its_formula_says(engine, pixels, vgg16):
    if engine == "openvino":
        pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
    wanted = replace(spec(), pool="embedding", engine=engine)
    found = opened(wanted, vgg16)(pixels)
    assert found.shape == (len(pixels), 512)
    whole = PreparedBase(spec(), vgg16).open(threads=2)(pixels)
    for one, features in zip(found, whole, strict=True):
        unit = np.abs(features[features != 0]).mean()
        mean = (features / (np.abs(features) + unit)).mean(axis=(0, 1))
        np.testing.assert_allclose(one, mean / np.linalg.norm(mean), atol=1e-4)


def test_a_black_photograph_has_an_embedding():
    thumbnail = replace(spec(), base="thumbnail", input_size=64, pool="embedding")
    thumbnail = replace(thumbnail, preparation="none")
    black = np.zeros((1, 64, 64, 3), np.uint8)
    assert not PreparedBase(thumbnail, []).open(threads=1)(black).any()


def test_a_dense_head_says_what_its_keras_head_says(fast):
    trained = classifier.load(str(fast / "classifier"))
    assert trained.dense is not None
    embeddings = np.random.default_rng(0).normal(size=(300, 192)).astype(np.float16)
    told = trained.dense(embeddings)
    expected = PreparedHead(keras=trained.head).open(threads=1)(embeddings)
    np.testing.assert_allclose(told, expected, atol=1e-5)
    # The same of one as of all, to the last bit.
    assert np.array_equal(np.concatenate([trained.dense(e[None]) for e in embeddings]), told)
    again = DenseHead.from_bytes(trained.dense.to_bytes())
    assert np.array_equal(again(embeddings), told)


def test_bfloat16_is_close(pixels, vgg16):
    exact, rounded = (
        PreparedBase(spec(precision=precision), vgg16).open(threads=2)(pixels)
        for precision in ("float32", "bfloat16")
    )
    assert np.linalg.norm(rounded - exact) <= 0.02 * np.linalg.norm(exact)


def test_features_of_an_earlier_layer(vgg16, pixels):
    engine = PreparedBase(spec(layer="block4_pool"), vgg16).open(threads=2)
    assert engine.feature_shape == (14, 14, 512)
    with pytest.raises(UsageError, match=r"no layer 'block9'.*block5_pool"):
        PreparedBase(spec(layer="block9"), vgg16).open(threads=2)


@pytest.mark.parametrize(
    ("preparation", "module"),
    [
        ("vgg", "vgg16"),
        ("vgg", "resnet"),
        ("tf", "inception_v3"),
        ("torch", "densenet"),
        ("efficientnet", "efficientnet"),
        ("none", "efficientnet_v2"),
    ],
)
def test_preparations_are_keras_own(preparation, module):
    rule = PREPARATIONS[preparation]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    ours = (pixels[..., ::-1] if rule.bgr else pixels) * rule.scale + rule.offset
    keras_own = importlib.import_module(f"keras.applications.{module}").preprocess_input
    np.testing.assert_allclose(ours, keras_own(pixels.copy()), atol=1e-4)


def test_every_base_is_one_of_keras_or_ours():
    import keras

    for base in BASES.values():
        ours = not base.builder or base.builder in efficientnet_lite.SCALES
        assert ours or callable(getattr(keras.applications, base.builder))
        assert base.preparation in PREPARATIONS


def test_efficientnet_normalises_as_keras_does(monkeypatch, tmp_path):
    """Keras adds a layer for its published weights alone, which these take the place of."""
    import keras
    from keras.src.applications import efficientnet

    model = keras.applications.EfficientNetB0(weights=None, include_top=False)
    normalises = next(one for one in model.layers if isinstance(one, keras.layers.Normalization))
    normalises.adapt_mean.assign(np.reshape([0.485, 0.456, 0.406], normalises.adapt_mean.shape))
    normalises.adapt_variance.assign(np.reshape([0.2, 0.3, 0.1], normalises.adapt_mean.shape))
    file = str(tmp_path / "published.weights.h5")
    model.save_weights(file)
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *a, **k: file)
    published = keras.applications.EfficientNetB0(include_top=False)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    theirs = published.predict_on_batch(pixels.astype(np.float32))
    ours = opened(
        BaseSpec(
            *("efficientnetb0", None, 224, BASES["efficientnetb0"].preparation, "-"),
            *("float32", "keras", "imagenet", "-"),
        ),
        model.get_weights(),
    )(pixels)
    assert theirs.any()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def lite(name, **fields):
    made = ("float32", "keras", "imagenet", "-")
    return replace(BaseSpec(name, None, SIDES[name], "lite", "-", *made), **fields)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
@pytest.mark.parametrize("name", SIDES)
def test_efficientnet_lite_computes_what_pytorch_does(name, engine):
    """See torch_reference.py."""
    if engine == "openvino":
        pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
    found = opened(lite(name, engine=engine), weights.load(name, say=lambda message: None).arrays)
    with np.load(REFERENCE, allow_pickle=False) as references:
        expected = references[name]
    features = parts(found(drawn(SIDES[name])))
    assert features.shape == expected.shape == (4, 1280)
    assert expected.max() > 5  # ReLU6 gives up to 6
    np.testing.assert_allclose(features, expected, atol=1e-3)


@pytest.mark.parametrize("pool", ["embedding", "avg", None])
def test_efficientnet_lite_at_every_precision(pool):
    pytest.importorskip("nncf", reason="flowerray[openvino] is not installed")
    arrays = weights.load("efficientnet-lite0", say=lambda message: None).arrays
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    pixels = noise.repeat(28, axis=1).repeat(28, axis=2)
    exact = opened(lite("efficientnet-lite0", pool=pool), arrays)(pixels)
    for precision, engine, cosine in (
        ("bfloat16", "keras", 0.99),
        ("bfloat16", "openvino", 0.99),
        ("int8", "openvino", 0.9),
    ):
        wanted = lite("efficientnet-lite0", pool=pool, precision=precision, engine=engine)
        rounded = opened(wanted, arrays, pixels if precision == "int8" else None)(pixels)
        assert rounded.shape == exact.shape
        length = np.linalg.norm(exact) * np.linalg.norm(rounded)
        assert (exact * rounded).sum() >= cosine * length, (precision, engine)


# A layer that all later ones build on, and one that there is a way around.
@pytest.mark.parametrize(
    ("base", "layer", "around"),
    [
        ("efficientnet-lite0", "block6d_add", "block6d_project_conv"),
        ("mobilenetv3small", "expanded_conv_7_add", "expanded_conv_7_project_bn"),
        (
            "convnexttiny",
            "convnext_tiny_downsampling_block_1",
            "convnext_tiny_stage_2_block_0_gelu",
        ),
    ],
)
def test_the_layers_of_other_bases_make_a_classifier(base, layer, around):
    known = BASES[base]
    model = network(known.builder, (known.input_size, known.input_size, 3))
    spec = BaseSpec(
        *(base, layer, known.input_size, known.preparation, "-", "float32", "keras", "random", "-")
    )
    rest = layers_after(spec, model.get_weights())
    head = head_bytes(without_optimizer(rest))
    classifier.check_layers(head, base)
    features = np.random.default_rng(0).normal(0, 1, (1, *rest.input_shape[1:])).astype(np.float32)
    there, here = open_head(head)(features), rest(features)
    assert np.allclose(there, here, atol=1e-5 * float(np.abs(here).max())) and np.any(here)
    with pytest.raises(UsageError, match="has a way around"):
        layers_after(replace(spec, layer=around), model.get_weights())


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_jobs_run_on_keras_other_backends(backend, command, few, tmp_path):
    pytest.importorskip(backend, reason=f"{backend} is not installed (it is no dependency)")
    done = command(
        *("run", few.labelled, few.pile, "--out", tmp_path, "--truth", few.truth, "--json"),
        KERAS_BACKEND=backend,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluation"]["accuracy"] >= 0.9


def test_a_trainer_converts_its_head(fast, sample, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="flowerray[openvino] is not installed")
    flowerray.extract(sample.labelled, out=tmp_path / "f", base="thumbnail", pool="none")
    flowerray.train(tmp_path / "f", out=tmp_path / "c")
    trained = classifier.load(str(tmp_path / "c"))
    assert trained.dense is None

    def converts(*arguments):
        raise AssertionError("labelling would start a task to convert the head")

    monkeypatch.setattr("flowerray.pipeline.tasks.run_once", converts)
    head = conversion.head(trained.head)
    base = conversion.base(trained.base_spec, weights.load("thumbnail", say=lambda message: None))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    features = PreparedBase(trained.base_spec, base).open(threads=1)(pixels)
    told = PreparedHead(converted=head).open(threads=1)(as_stored(features))
    assert told.shape == (2, len(trained.classes) + 1)
    assert np.allclose(told[:, :-1].sum(axis=1), 1, atol=1e-5)


def test_the_cache_keeps_the_heads_used_last(monkeypatch, tmp_path):
    pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(conversion, "HEADS_KEPT", 2)
    monkeypatch.setattr(
        "flowerray.pipeline.tasks.run_once", lambda convert, head: [np.ones(1, np.uint8)] * 2
    )
    made = [np.zeros(1, np.uint8)] * 2
    conversion.keep_head(b"old", made)
    conversion.keep_head(b"unused", made)
    for file in (tmp_path / "openvino").iterdir():
        os.utime(file, (0, 0))
    conversion.head(b"old")  # used, so the other goes
    conversion.keep_head(b"new", made)
    found = [int(conversion.head(head)[0][0]) for head in (b"old", b"new", b"unused")]
    assert found == [0, 0, 1] and len(list((tmp_path / "openvino").iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_no_job(monkeypatch, tmp_path):
    pytest.importorskip("openvino", reason="flowerray[openvino] is not installed")
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path / "file" / "cache"))
    converted = [np.zeros(1, np.uint8)] * 2
    monkeypatch.setattr("flowerray.pipeline.tasks.run_once", lambda convert, head: converted)
    conversion.keep_head(b"head", converted)
    assert conversion.head(b"head") is converted
    (tmp_path / "openvino").mkdir()
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path))
    conversion._file("head", conversion._made(b"head")).touch()  # an empty file is as none
    assert conversion.head(b"head") is converted
    assert not (tmp_path / "file" / "cache").exists()
