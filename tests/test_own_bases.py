"""Bases in files of the user's own: ONNX encoders and Keras models."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from hub import hub_of
from onnx import TensorProto, helper
from onnx_models import SIDE, VIT, convolutional, laid_out, vision_transformer
from PIL import Image

from flowerray.bases import hardware, weights
from flowerray.bases.own import base as own
from flowerray.bases.own import keras_file, onnx_file, preprocessor, probe
from flowerray.bases.prepared import PreparedBase
from flowerray.bases.spec import PREPARATIONS, BaseSpec
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.predict import load
from flowerray.commands.train import train
from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs.record import read_output
from flowerray.pipeline import conversion
from flowerray.settings import ExtractSettings, LabelSettings, TrainSettings
from flowerray.sources.photographs import Limits, decode
from flowerray.stores.folder import Folder

ASKED = BaseSpec("", None, 0, "", "", "float32", "onnxruntime", "", "", "embedding", None, "srgb")
ENGINES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, request):
    """What is kept of these bases is no business of the user's cache."""
    if "few" not in request.fixturenames:
        monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path / "cache"))


def pixels_of(count=5, side=SIDE):
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), np.uint8)


def features(place, engine, pixels, **asked):
    """What an extraction computes of `pixels`, and its spec."""
    model = own.read(str(place))
    spec = own.spec_of(model, replace(ASKED, engine=engine, **asked))
    arrays = model.arrays
    if engine == "openvino":
        arrays = conversion.base(spec, weights.Weights(arrays, model.sha256, ""), conversion.here)
    opened = PreparedBase(spec, arrays).open(1)
    computed = opened(pixels)
    assert computed.dtype == np.float32 and computed.shape[1:] == opened.feature_shape
    return computed, BaseSpec.from_dict(json.loads(json.dumps(vars_of(spec))))


def vars_of(spec):
    return {**vars(spec), "own": vars(spec.own)}


def by_onnxruntime(place, pixels, output, channels_first=True):
    """What ONNX Runtime makes of the file itself, of pixels prepared as its config says."""
    import onnxruntime

    x = (pixels / np.float32(255) - np.float32(VIT["image_mean"])) / np.float32(VIT["image_std"])
    x = x.transpose(0, 3, 1, 2) if channels_first else x
    session = onnxruntime.InferenceSession(place / "model.onnx")
    return session.run([output], {"pixel_values": x.astype(np.float32)})[0]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_tokens_and_vectors_are_pooled_as_asked(tmp_path, engine):
    vit = laid_out(tmp_path / "vit", vision_transformer())
    pixels = pixels_of()
    tokens = by_onnxruntime(vit, pixels, "last_hidden_state")
    vectors = by_onnxruntime(vit, pixels, "pooler_output")
    assert tokens.shape == (5, 17, 16)
    for asked, expected in (
        ({"pool": None}, tokens),
        ({"pool": "cls"}, tokens[:, 0]),
        ({"pool": "avg"}, tokens.mean(axis=1)),
        ({"pool": "embedding"}, unit(tokens[:, 0])),
        ({"pool": None, "layer": "pooler_output"}, vectors),
        ({"pool": "embedding", "layer": "pooler_output"}, unit(vectors)),
    ):
        computed, spec = features(vit, engine, pixels, **asked)
        np.testing.assert_allclose(computed, expected, atol=1e-4, err_msg=str(asked))
        assert (spec.base, spec.layer, spec.pool) == ("vit", asked.get("layer"), asked["pool"])
        assert spec.weights_sha256 == hashlib.sha256((vit / "model.onnx").read_bytes()).hexdigest()
    places = laid_out(tmp_path / "places", vision_transformer(class_token=False))
    computed, spec = features(places, engine, pixels)
    expected = unit(by_onnxruntime(places, pixels, "last_hidden_state").mean(axis=1))
    np.testing.assert_allclose(computed, expected, atol=1e-4)
    assert spec.own.tokens == "avg"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"channels_last": True},
        {"batch": 2},
        {"opset": 11},
        {"opset": 20},
        {"side": "any"},
        {"half": True},
    ],
    ids=str,
)
def test_maps_of_any_layout_are_embedded_as_ours_are(tmp_path, engine, how):
    pixels, tolerance = pixels_of(), 2e-3 if how.get("half") else 1e-5
    place = laid_out(tmp_path / "net", convolutional(**how))
    plain = laid_out(tmp_path / "plain", convolutional(batch=how.get("batch", "n")))
    whole = np.concatenate(
        [by_onnxruntime(plain, pixels[i : i + 1].repeat(2, 0), "features_map") for i in range(5)]
    )[::2].transpose(0, 2, 3, 1)
    computed, _ = features(place, engine, pixels, pool=None)
    np.testing.assert_allclose(computed, whole, atol=max(tolerance, 1e-5))
    computed, _ = features(place, engine, pixels, pool="avg")
    np.testing.assert_allclose(computed, whole.mean(axis=(1, 2)), atol=max(tolerance, 1e-5))
    import keras

    from flowerray.bases.engines.keras import embedding

    inputs = keras.Input(whole.shape[1:])
    ours = keras.Model(inputs, embedding(inputs)).predict_on_batch(whole)
    computed, _ = features(place, engine, pixels)
    np.testing.assert_allclose(computed, ours, atol=max(tolerance, 1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_vgg16_from_a_file_is_the_built_in_one(few, tmp_path, precision):
    from flowerray.bases.engines.openvino import OpenVinoEngine, convert
    from flowerray.heads.dense import fit_logistic, predict_dense

    if precision != "float32" and not getattr(hardware.here(), precision):
        pytest.skip(f"this CPU has no instructions for {precision}")
    arrays = weights.load("vgg16", say=lambda _: None).arrays
    place = laid_out(tmp_path / "vgg", onnx_models.vgg16(arrays), **onnx_models.VGG16_PIXELS)
    model = own.read(str(place))
    theirs = own.spec_of(model, replace(ASKED, engine="openvino", precision=precision))
    vgg = PREPARATIONS["vgg"]
    ours = BaseSpec(
        *("vgg16", None, 224, "vgg", vgg.resize, precision, "openvino", "imagenet", ""),
        pool="embedding",
        colour="srgb",
    )
    files = sorted(Path(few.labelled).rglob("*.jpg"))
    assert (theirs.resize, theirs.crop, theirs.input_size) == (ours.resize, None, 224)
    pixels = np.stack([decode(f.read_bytes(), 224, ours.resize, Limits(), "srgb") for f in files])
    taught = pixels[::2] if precision == "int8" else None
    both = []
    for spec, data in ((ours, arrays), (theirs, model.arrays)):
        engine = OpenVinoEngine(spec, convert(spec, data, taught), 2)
        both.append(np.concatenate([engine(pixels[i : i + 8]) for i in range(0, len(pixels), 8)]))
    if precision == "float32":
        np.testing.assert_allclose(both[1], both[0], atol=1e-3)
    labels = np.unique([f.parent.name for f in files], return_inverse=True)[1]
    head = fit_logistic(both[0], labels, np.ones(len(labels)), 0)
    said = [predict_dense(head, one).argmax(axis=1) for one in both]
    assert np.array_equal(*said) and len(set(said[0])) > 1


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        # As the processors of ViT, CLIP, DINOv2 (Bit), ConvNeXT, SigLIP, MobileViT write them.
        ({"size": {"height": 224, "width": 224}, "resample": 2}, (224, "bilinear-dct", None)),
        (
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "size": 224,
                "resample": 3,
                "do_center_crop": True,
                "crop_size": 224,
            },
            (224, "bicubic-dct", 224),
        ),
        (
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 256},
                "resample": 3,
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            (224, "bicubic-dct", 256),
        ),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.875,
                "resample": 3,
            },
            (224, "bicubic-dct", 256),
        ),
        (
            {"image_processor_type": "ConvNextFeatureExtractor", "size": 384, "resample": 3},
            (384, "bicubic-dct", None),
        ),
        (
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 224},
            (224, "bilinear-dct", None),
        ),
        ({"size": {"height": 256, "width": 256}, "resample": 1}, (256, "lanczos-dct", None)),
        ({"size": [224, 224], "resample": "nearest"}, (224, "nearest", None)),
        ({"do_resize": False}, (None, "bilinear-dct", None)),
    ],
    ids=str,
)
def test_image_processors_are_followed(tmp_path, about, expected):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**VIT, **about}))
    found = preprocessor.read(file)
    assert (found.size, found.resize, found.crop) == expected
    np.testing.assert_allclose(found.scale, np.array([1 / 255] * 3) / VIT["image_std"])
    np.testing.assert_allclose(found.offset, -np.array(VIT["image_mean"]) / VIT["image_std"])


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("[]", "no JSON object"),
        ("{", "preprocessor_config.json: "),
        ({"size": {"height": 224, "width": 192}}, "no square"),
        ({"size": {"shortest_edge": 224}}, "nothing crops"),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, "longest_edge"),
        ({"size": {"longest_edge": 800}}, "size is"),
        ({"size": "large"}, "size is 'large'"),
        ({"size": 10**9}, "no side of 8 to 4096"),
        ({"size": True}, "no side"),
        ({"size": 224, "do_pad": True}, "do_pad is"),
        ({"size": 224, "ensure_multiple_of": 14}, "ensure_multiple_of is 14"),
        ({"size": 224, "resample": 9}, "resample is 9"),
        ({"size": 224, "resample": None}, "resample is None"),
        ({"size": 224, "image_std": [1, 0, 1]}, "image_std has a 0"),
        ({"size": 224, "image_mean": [1, 1]}, "image_mean is [1, 1]"),
        ({"size": 224, "image_mean": [1, 1, float("nan")]}, "no list of three numbers"),
        ({"size": 224, "image_mean": None}, "image_mean is None"),
        ({"size": 224, "rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
        ({"size": 224, "do_resize": False}, "do_resize is off"),
        (
            {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 256},
            "larger than the shortest_edge",
        ),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, "224 of a squashed 256"),
    ],
    ids=str,
)
def test_odd_image_processors_are_refused_in_a_line(tmp_path, about, message):
    place = laid_out(tmp_path / "odd", convolutional())
    file = place / "preprocessor_config.json"
    file.write_text(about if isinstance(about, str) else json.dumps({**VIT, **about}))
    with pytest.raises(FlowerrayError) as refused:
        features(place, "onnxruntime", pixels_of())
    said = str(refused.value)
    assert message in said and str(file) in said and "\n" not in said


def test_a_crop_is_of_the_middle_and_takes_no_memory_for_a_panorama():
    stripes = np.zeros((40, 120, 3), np.uint8)
    stripes[:, 40:80] = 200  # the middle third
    for turned in (stripes, stripes.transpose(1, 0, 2)):
        cut = decode(png(turned), 32, "bicubic-dct", Limits(), None, crop=40)
        assert cut.shape == (32, 32, 3) and (cut == 200).all()
    squashed = decode(png(stripes), 32, "bicubic-dct", Limits(), None)
    assert (squashed[:, 0] == 0).all() and (squashed[:, 16] == 200).all()
    script = (
        "import resource, sys, io, numpy as np; from PIL import Image;"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30));"
        "from flowerray.sources.photographs import decode, Limits;"
        "stream = io.BytesIO(); Image.new('RGB', (1, 60000), 'red').save(stream, 'PNG');"
        "cut = decode(stream.getvalue(), 224, 'bicubic-dct', Limits(), None, crop=256);"
        "print(cut.shape, cut[0, 0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "(224, 224, 3) [255   0   0]\n", done.stderr


def png(pixels):
    import io

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


def damaged(directory, change):
    """A file whose model was changed by `change`."""
    model = convolutional()
    change(model)
    return laid_out(directory, model) / "model.onnx"


def declares_ten_gigabytes(model):
    model.graph.initializer[0].dims[:] = [50_000, 50_000]


def declares_them_outside(location):
    def change(model):
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.raw_data = b""
        for key, value in (("location", location), ("offset", "0"), ("length", "2304")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def has_a_custom_operator(model):
    model.graph.node[0].domain = "com.example"


def hides_a_custom_operator(model):
    inner = helper.make_graph(
        [helper.make_node("Run", [], ["x"], domain="evil")],
        "inner",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=condition))
    model.graph.node.append(
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    )


def has_a_constant_that_is_not_there(model):
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    tensor.dims[:] = [1000, 1000]
    model.graph.node.append(helper.make_node("Constant", [], ["t"], value=tensor))


def has_a_negative_side(model):
    model.graph.initializer[0].dims[0] = -3


def takes_words_too(model):
    words = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "words"])
    model.graph.input.append(words)


def is_not_of_squares(model):
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 48


def has_four_channels(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4


def is_of_bytes(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def has_no_graph(model):
    del model.graph.node[:]


def is_of_old_operators(model):
    model.opset_import[0].version = 7


HOSTILE = {
    declares_ten_gigabytes: "more than 2 GB of weights are declared",
    declares_them_outside("../../etc/passwd"): "external data '../../etc/passwd' is not beside it",
    declares_them_outside("/etc/passwd"): "external data '/etc/passwd' is not beside it",
    declares_them_outside("link"): "external data 'link' is not beside it",
    declares_them_outside("inside/link/passwd"): "is not beside it",
    declares_them_outside(""): "external data '' is not beside it",
    declares_them_outside("none.bin"): "external data 'none.bin' is missing",
    declares_them_outside("short.bin"): "is not all in short.bin",
    declares_them_outside("pipe"): "external data 'pipe' is missing",
    has_a_custom_operator: "the custom operator com.example.Conv",
    hides_a_custom_operator: "the custom operator evil.Run",
    has_a_constant_that_is_not_there: "the tensor 't' is not all there",
    has_a_negative_side: "has a negative side",
    takes_words_too: "it takes pixel_values, input_ids, not photographs alone",
    is_not_of_squares: "no squares",
    has_four_channels: "no photographs of three colours",
    is_of_bytes: "not of float32 or float16",
    has_no_graph: "it has no graph",
    is_of_old_operators: "opset 7: export it with opset 11 or later",
}


@pytest.mark.parametrize("change", HOSTILE, ids=[*map(str, range(len(HOSTILE)))])
def test_a_hostile_file_is_refused_in_a_line(tmp_path, change):
    file = damaged(tmp_path / "hostile", change)
    (file.parent / "link").symlink_to("/etc/passwd")
    (file.parent / "inside").mkdir()
    (file.parent / "inside" / "link").symlink_to("/etc")
    (file.parent / "short.bin").write_bytes(b"0" * 100)
    os.mkfifo(file.parent / "pipe")
    with pytest.raises(FlowerrayError) as refused:
        own.read(str(file))
    said = str(refused.value)
    assert HOSTILE[change] in said and str(file) in said and "\n" not in said


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07" + b"\xff" * 50, b"PK\3\4zip"])
def test_what_is_no_onnx_file_is_refused_in_a_line(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(FlowerrayError, match=r"x\.onnx: no ONNX file"):
        onnx_file.read(tmp_path / "x.onnx")


def test_a_graph_that_computes_for_ever_or_too_much_is_refused(tmp_path, monkeypatch):
    def grows(model):
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [60_000, 60_000])
        nodes = [helper.make_node("Constant", [], ["shape"], value=shape)]
        nodes.append(helper.make_node("ConstantOfShape", ["shape"], ["huge"]))
        nodes.append(helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
        nodes.append(helper.make_node("Add", ["features_map", "sum"], ["more"]))
        model.graph.node.extend(nodes)
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))

    def loops(model):
        inner = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["on"]),
                helper.make_node("Sin", ["before"], ["after"]),
            ],
            "inner",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
            ],
        )
        go = helper.make_tensor("true", TensorProto.BOOL, [], [True])
        model.graph.node.append(helper.make_node("Constant", [], ["true"], value=go))
        model.graph.node.append(
            helper.make_node("Loop", ["", "true", "features_map"], ["more"], body=inner)
        )
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))

    monkeypatch.setattr(probe, "SECONDS", 8)
    with pytest.raises(FlowerrayError, match=r"loops/model\.onnx: it computes .* more than 8 s"):
        features(damaged(tmp_path / "loops", loops).parent, "onnxruntime", pixels_of())
    monkeypatch.undo()
    with pytest.raises(FlowerrayError, match=r"grows/model\.onnx: ") as refused:
        features(damaged(tmp_path / "grows", grows).parent, "onnxruntime", pixels_of())
    assert "\n" not in str(refused.value)


def with_external_data(directory):
    model = vision_transformer()
    place = laid_out(directory, model)
    onnx.save(
        *(model, place / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=64,
    )
    return place


def test_data_beside_the_file_are_read_and_hashed(tmp_path):
    pixels = pixels_of()
    inside, spec = features(laid_out(tmp_path / "in", vision_transformer()), "onnxruntime", pixels)
    place = with_external_data(tmp_path / "out")
    beside, other = features(place, "onnxruntime", pixels)
    np.testing.assert_array_equal(inside, beside)
    assert spec.weights_sha256 != other.weights_sha256
    data = bytearray((place / "model.onnx_data").read_bytes())
    data[0] ^= 1
    (place / "model.onnx_data").write_bytes(data)
    assert features(place, "onnxruntime", pixels)[1].weights_sha256 != other.weights_sha256


def test_a_hugging_face_cache_is_read_through_its_links(tmp_path):
    made = with_external_data(tmp_path / "made")
    repository = tmp_path / "hub" / "models--somebody--flowers-vit"
    snapshot = repository / "snapshots" / ("a" * 40)
    (snapshot / "onnx").mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, name in enumerate(("model.onnx", "model.onnx_data")):
        (made / name).rename(repository / "blobs" / str(number))
        (snapshot / "onnx" / name).symlink_to(f"../../../blobs/{number}")
    (made / "preprocessor_config.json").rename(snapshot / "preprocessor_config.json")
    _, spec = features(snapshot, "onnxruntime", pixels_of())
    assert spec.base == "flowers-vit"
    (snapshot / "onnx" / "model.onnx_data").unlink()
    (snapshot / "onnx" / "model.onnx_data").symlink_to("/etc/passwd")
    with pytest.raises(FlowerrayError, match="is not beside it"):
        own.read(str(snapshot))


def test_a_base_comes_from_a_bucket_or_hugging_face(tmp_path, s3, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="needs flowerray[hf]")
    made = with_external_data(tmp_path / "flowers-vit")
    pixels = pixels_of()
    expected, spec = features(made, "onnxruntime", pixels)
    files = {file.name: file.read_bytes() for file in made.iterdir()}
    there = {f"onnx/{name}" if "model" in name else name: data for name, data in files.items()}
    for name, data in there.items():
        Folder("s3://flowers/bases/flowers-vit").write(name, data)
    Folder("s3://flowers/bases/flowers-vit").write("photograph.jpg", b"no part of it")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with hub_of({"somebody/flowers-vit": {**there, "pytorch_model.bin": b"a pickle"}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        for place in ("s3://flowers/bases/flowers-vit", "hf://somebody/flowers-vit@main"):
            for file in (place, f"{place}/onnx/model.onnx"):
                found, theirs = features(file, "onnxruntime", pixels)
                np.testing.assert_array_equal(found, expected)
                assert theirs == spec and own.name_of(file) == "flowers-vit"
        assert not any("pickle" in request or ".bin" in request for request in hub.asked)
    fetched = {path.name for path in (tmp_path / "cache" / "fetched").rglob("*") if path.is_file()}
    assert fetched == set(files)
    with pytest.raises(FlowerrayError, match=r"s3://flowers/bases/none has none of preprocessor"):
        own.read("s3://flowers/bases/none")


def test_a_directory_stands_for_the_model_in_it(tmp_path):
    with pytest.raises(FlowerrayError, match="no such base"):
        own.read(str(tmp_path / "nothing.onnx"))
    with pytest.raises(FlowerrayError, match=r"has no model\.onnx"):
        own.read(str(tmp_path))
    place = laid_out(tmp_path / "two", convolutional())
    (place / "model.onnx").rename(place / "a.onnx")
    assert own.read(str(place)).name == "a"
    (place / "b.onnx").write_bytes((place / "a.onnx").read_bytes())
    with pytest.raises(FlowerrayError, match=r"two holds a\.onnx, b\.onnx: name one"):
        own.read(str(place))
    (place / "preprocessor_config.json").unlink()
    with pytest.raises(
        FlowerrayError, match=r"a\.onnx: no preprocessor_config\.json .*--preparation"
    ):
        features(place / "a.onnx", "onnxruntime", pixels_of())
    computed, spec = features(place / "a.onnx", "onnxruntime", pixels_of(), preparation="torch")
    assert spec.input_size == SIDE and computed.shape == (5, 12)
    assert spec.pixels == replace(PREPARATIONS["torch"], colour="srgb")
    (place / "weights.bin").write_bytes(b"")
    with pytest.raises(FlowerrayError, match=r"give a \.onnx or a \.keras file"):
        own.read(str(place / "weights.bin"))


def test_outputs_and_pools_that_are_not_there_are_told(tmp_path):
    vit = laid_out(tmp_path / "vit", vision_transformer())
    for asked, message in (
        ({"layer": "logits"}, "one of last_hidden_state, pooler_output"),
        ({"layer": "pooler_output", "pool": "cls"}, "--pool cls is of tokens"),
        ({"layer": "pooler_output", "pool": "avg"}, "one vector already"),
    ):
        with pytest.raises(UsageError, match=message):
            features(vit, "onnxruntime", pixels_of(), **asked)
    other = laid_out(tmp_path / "other", convolutional(), size={"height": 64, "width": 64})
    with pytest.raises(FlowerrayError, match=r"takes 32x32 pixels, its .* makes 64x64"):
        features(other, "onnxruntime", pixels_of())
    unsaid = laid_out(tmp_path / "unsaid", convolutional(side="any"), size=None)
    with pytest.raises(FlowerrayError, match="how large its pixels are"):
        features(unsaid, "onnxruntime", pixels_of())


def small_keras(layers=()):
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(12, 4, strides=4, activation="relu", name="map")(x)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_a_keras_model_is_a_base(tmp_path, engine):
    import keras

    pixels, model = pixels_of(), small_keras([keras.layers.Reshape((64, 12))])
    file = tmp_path / "mine.keras"
    model.save(file)
    asked = {"preparation": "none"}
    tokens = np.asarray(model(pixels.astype(np.float32)))
    for pool, expected in (
        (None, tokens),
        ("avg", tokens.mean(axis=1)),
        ("cls", tokens[:, 0]),
        ("embedding", unit(tokens.mean(axis=1))),
    ):
        computed, spec = features(file, engine, pixels, pool=pool, **asked)
        np.testing.assert_allclose(computed, expected, atol=1e-4)
        assert (spec.base, spec.own.format, spec.own.tokens) == ("mine", "keras", "avg")
    computed, _ = features(file, engine, pixels, layer="map", pool=None, **asked)
    np.testing.assert_allclose(computed.reshape(tokens.shape), tokens, atol=1e-4)
    with pytest.raises(FlowerrayError, match=r"mine\.keras: No such layer: logits"):
        features(file, engine, pixels, layer="logits", **asked)


def test_a_keras_model_that_could_run_code_is_refused(tmp_path):
    import keras

    file = tmp_path / "x.keras"
    for layer in (
        keras.layers.Lambda(lambda x: x * 2),
        keras.layers.StringLookup(vocabulary=["a"]),
    ):
        inputs = keras.Input((4,), dtype="string" if "lookup" in layer.name else "float32")
        keras.Model(inputs, layer(inputs)).save(file)
        with pytest.raises(FlowerrayError, match=r"x\.keras: it holds .*could run code: refused"):
            own.read(str(file))
    file.write_bytes(b"no archive")
    with pytest.raises(FlowerrayError, match=r"x\.keras: no Keras model"):
        own.read(str(file))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Popen", "module": "subprocess"}))
    with pytest.raises(FlowerrayError, match=r"subprocess\.Popen"):
        own.read(str(file))


def test_every_keras_application_is_made_of_layers_that_are_let_in(tmp_path):
    """Who saves one of them, fine-tuned elsewhere, gets it in."""
    import keras

    for name in ("MobileNetV2", "MobileNetV3Small", "EfficientNetV2B0", "DenseNet121", "Xception"):
        model = getattr(keras.applications, name)(weights=None, include_top=False)
        model.save(tmp_path / "x.keras")
        keras_file.check((tmp_path / "x.keras").read_bytes())


@pytest.mark.slow
def test_the_whole_way(sample, on_local_ray, tmp_path, monkeypatch):
    vit = laid_out(tmp_path / "vit", vision_transformer())
    out, trained = tmp_path / "features", tmp_path / "classifier"
    extract(ExtractSettings(images=sample.labelled, out=out, base=str(vit)))
    train(TrainSettings(features=out, out=trained))
    labels = label(LabelSettings(images=sample.pile, classifier=trained, out=tmp_path / "labels"))
    assert labels.photographs and sum(labels.labels.values())
    photograph = next(Path(sample.labelled).rglob("*.jpg"))
    assert load(trained).predict(photograph).confidence > 0
    # A machine that has never seen the base.
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path / "empty"))
    with pytest.raises(FlowerrayError, match=r"vit .*not on this machine: give its onnx file"):
        load(trained)
    other = laid_out(tmp_path / "other", vision_transformer(class_token=False))
    with pytest.raises(FlowerrayError, match="is not the base vit"):
        load(trained, weights=str(other))
    assert load(trained, weights=str(vit)).predict(photograph).confidence > 0
    with pytest.raises(FlowerrayError, match="tokens: cls / avg"):
        extract(ExtractSettings(images=sample.labelled, out=out, base=str(other), append=True))
    for engine, message in (("keras", "is an ONNX file"), ("onnxruntime", "is no ONNX file")):
        base = str(vit) if engine == "keras" else "thumbnail"
        with pytest.raises(UsageError, match=message):
            asked = {"images": sample.labelled, "out": tmp_path / "no", "base": base}
            extract(ExtractSettings(**asked, engine=engine))
    with pytest.raises(UsageError, match="computes in float32"):
        asked = {"images": sample.labelled, "out": tmp_path / "no", "base": str(vit)}
        extract(ExtractSettings(**asked, engine="onnxruntime", precision="float16"))
    out = tmp_path / "without"
    extract(ExtractSettings(images=sample.labelled, out=out, base=str(vit), engine="onnxruntime"))
    recorded = read_output(str(out), "features").run["config"]["base_spec"]
    assert (recorded["engine"], recorded["precision"]) == ("onnxruntime", "float32")
    with pytest.raises(UsageError, match="--recipe finetune"):
        train(TrainSettings(features=out, out=tmp_path / "no", recipe="finetune"))
