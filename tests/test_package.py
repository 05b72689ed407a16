"""A classifier in one file: by ONNX Runtime alone, by flowerray, by OpenVINO and Keras."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from onnx import TensorProto, helper
from onnx.utils import Extractor
from PIL import Image

import flowerray as fr
from flowerray import cli
from flowerray.bases import weights
from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier
from flowerray.packages import card
from flowerray.packages import onnx as packages
from flowerray.sources.photographs import Limits, decode

SIZES = ((64, 64), (300, 500), (40, 90), (64, 200))


@pytest.fixture(scope="module")
def packaged(fast, tmp_path_factory):
    """A package of the fast classifier: its summary."""
    out = tmp_path_factory.mktemp("packaged") / "flowers.onnx"
    return fr.package(fast / "classifier", out=out, release=3)


@pytest.fixture(scope="module")
def article(sample, local_ray, tmp_path_factory):
    """A classifier on whole maps that were resized by the nearest pixel, as the article does."""
    here = tmp_path_factory.mktemp("article")
    options = {"base": "thumbnail", "preparation": "article", "pool": "none"}
    fr.extract(sample.labelled, out=here / "features", **options)
    fr.train(here / "features", out=here / "classifier", recipe="logistic")
    return here / "classifier"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Run the code of docs/package.md where only ONNX Runtime, numpy and Pillow can be imported;
    returns each photograph's label."""
    seen = tmp_path_factory.mktemp("alone")
    for name in ("onnxruntime", "numpy", "PIL"):
        where = Path(sys.modules[name].__file__).parent
        for entry in (where, where.parent / f"{name}.libs", where.parent / "pillow.libs"):
            if entry.exists() and not (seen / entry.name).exists():
                (seen / entry.name).symlink_to(entry)
    document = (REPOSITORY / "docs" / "package.md").read_text()
    code = re.search(r"```python\n(.*?)```", document, re.S)[1]
    start = f"import sys; sys.path.append({str(seen)!r})\n"

    def run(package, photographs):
        python = [sys.executable, "-I", "-S", "-c"]
        missing = subprocess.run([*python, f"{start}import flowerray"], capture_output=True)
        assert b"No module named 'flowerray'" in missing.stderr
        done = subprocess.run(
            [*python, start + code, package, *photographs], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [line.split("\t")[1] for line in done.stdout.splitlines()]

    return run


def photographs_in(directory):
    return sorted(str(path) for path in Path(directory).rglob("*.jpg"))


def labels_in(directory):
    files = sorted((Path(directory) / "shards").iterdir())
    table = pa.concat_tables(pq.read_table(file) for file in files)
    return dict(zip(table["uri"].to_pylist(), table["label"].to_pylist(), strict=True))


def noise(height, width, number=2):
    chance = np.random.default_rng(height * width)
    return chance.integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def test_onnx_runtime_alone_gives_the_labels(packaged, fast, sample, alone):
    files = photographs_in(sample.labelled)
    said = [one.label for one in fr.load(fast / "classifier").predict(files)]
    assert len(set(said)) == 3
    found = alone(packaged.files[0], files)
    assert sum(a == b for a, b in zip(found, said, strict=True)) >= len(files) - 1


def test_a_packaged_file_of_vgg16_gives_the_labels_of_label(
    flower_photos, local_ray, alone, tmp_path
):
    """All of valid/, by a classifier of 300 photographs."""
    if not (weights.cache_directory() / "vgg16.npz").exists():
        pytest.skip("VGG16's weights are not in the cache: flowerray weights fetch")
    fr.extract(flower_photos, out=tmp_path / "features", train_per_class=100, valid_per_class=50)
    fr.train(tmp_path / "features", out=tmp_path / "classifier")
    valid = flower_photos / "valid"
    fr.label(valid, classifier=tmp_path / "classifier", out=tmp_path / "labels")
    done = fr.package(tmp_path / "classifier", out=tmp_path / "flowers.onnx")
    assert done.agreement["same"] >= done.agreement["photographs"] - 1 > 20
    said = labels_in(tmp_path / "labels")
    assert len(said) == 150
    found = alone(done.files[0], list(said))
    assert sum(a == b for a, b in zip(found, said.values(), strict=True)) >= 149


@pytest.mark.parametrize("size", SIZES)
def test_the_resize_is_pillows(packaged, size):
    whole = onnx.load(packaged.files[0])
    resize = Extractor(whole).extract_model(["photographs"], ["pixels"]).SerializeToString()
    photographs = noise(*size)
    (pixels,) = onnxruntime.InferenceSession(resize).run(None, {"photographs": photographs})
    wanted = [Image.fromarray(one).resize((64, 64), Image.BILINEAR) for one in photographs]
    apart = np.abs(pixels.astype(int) - np.stack(wanted))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


def test_every_format_says_the_same(fast, packaged, tmp_path):
    openvino = pytest.importorskip("openvino")
    fr.package(fast / "classifier", out=tmp_path / "flowers.xml", format="openvino")
    fr.package(fast / "classifier", out=tmp_path / "flowers.keras", format="keras")
    session = onnxruntime.InferenceSession(packaged.files[0])
    model = openvino.Core().read_model(tmp_path / "flowers.xml")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", exact)
    np.savez(tmp_path / "noise.npz", **{str(i): noise(*size) for i, size in enumerate(SIZES)})
    in_keras = by_keras(tmp_path)
    for number, size in enumerate(SIZES):
        given = {"photographs": noise(*size)}
        names = ["probabilities", "novelty", "features"]
        outputs = dict(zip(names, session.run(names, given), strict=True))
        probabilities, novelty, features = outputs.values()
        assert (probabilities.shape, novelty.shape, features.shape) == ((2, 3), (2,), (2, 192))
        assert features.dtype == np.float16
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        for name in names:
            np.testing.assert_allclose(compiled(given)[name], outputs[name], atol=2e-3)
        for name in names[:2]:
            np.testing.assert_allclose(in_keras[f"{name}{number}"], outputs[name], atol=2e-2)
    assert json.loads(model.get_rt_info(["flowerray", "classes"]).astype(str)) == [
        *("rose", "sunflower", "tulip")
    ]


def by_keras(directory):
    """What ``flowers.keras`` gives of ``noise.npz``, in a process that has no flowerray."""
    script = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model('flowers.keras', safe_mode=True)\n"
        "with np.load('noise.npz') as noise:\n"
        "    found = {n: model.predict_on_batch(noise[n]) for n in noise.files}\n"
        "np.savez('found.npz', **{k + n: v for n, one in found.items() for k, v in one.items()})\n"
        "assert 'flowerray' not in sys.modules\n"
    )
    run = [sys.executable, "-I", "-c", script]
    done = subprocess.run(run, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(directory / "found.npz")


def test_whole_maps_and_the_nearest_pixel_are_packaged_too(article, sample, tmp_path):
    done = fr.package(article, out=tmp_path / "article.onnx")
    files = photographs_in(sample.labelled)
    own, theirs = fr.load(article), fr.load(done.files[0])
    for one, other in zip(own.predict(files), theirs.predict(files), strict=True):
        assert one.label == other.label
        assert abs(one.confidence - other.confidence) < 1e-3
    whole = Extractor(onnx.load(done.files[0])).extract_model(["photographs"], ["pixels"])
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    for size in SIZES:
        (pixels,) = session.run(None, {"photographs": noise(*size)})
        wanted = [Image.fromarray(one).resize((64, 64), Image.NEAREST) for one in noise(*size)]
        np.testing.assert_array_equal(pixels, np.stack(wanted))


def test_predict_runs_a_package(packaged, fast, sample):
    files = photographs_in(sample.labelled)
    own, theirs = (
        fr.load(one, min_precision=0.6) for one in (fast / "classifier", packaged.files[0])
    )
    for one, other in zip(own.predict(files), theirs.predict(files), strict=True):
        assert (one.label, one.accepted) == (other.label, other.accepted)
        assert abs(one.confidence - other.confidence) < 1e-3
        assert abs(one.novelty - other.novelty) < 1e-3
    np.testing.assert_allclose(theirs.embed(files[0]), own.embed(files[0]), atol=1e-3)


def test_label_runs_a_package(packaged, fast, sample, tmp_path):
    own, theirs = (
        fr.label(sample.pile, classifier=one, out=tmp_path / name, min_confidence=0.5)
        for one, name in ((fast / "classifier", "own"), (packaged.files[0], "theirs"))
    )
    assert labels_in(tmp_path / "own") == labels_in(tmp_path / "theirs")
    assert own.labels == theirs.labels and own.accepted == theirs.accepted > 0
    assert own.rejected == theirs.rejected
    again = fr.label(sample.pile, classifier=packaged.files[0], out=tmp_path / "theirs")
    assert again.computed == 0
    with pytest.raises(FlowerrayError, match="other"):
        fr.label(sample.pile, classifier=packaged.files[0], out=tmp_path / "own")


def test_stored_features_are_not_labelled_by_a_package(packaged, fast, tmp_path):
    with pytest.raises(UsageError, match="features of another make"):
        fr.label(fast / "features", classifier=packaged.files[0], out=tmp_path / "labels")


def test_the_file_says_what_it_is_and_names_no_photograph(packaged, fast, sample):
    model = onnx.load(packaged.files[0])
    assert (model.producer_name, model.model_version) == ("flowerray", 3)
    metadata = {one.key: one.value for one in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["rose", "sunflower", "tulip"]
    assert Path(packaged.card).read_text() == metadata["card"]
    trained = classifier.load(str(fast / "classifier"))
    for part in (trained.id, "| release | 3 |", "## Thresholds", "## Limits", "## Licences"):
        assert part in metadata["card"]
    assert packaged.agreement["same"] == packaged.agreement["photographs"] > 0
    evidence = classifier.evidence(packaged.files[0])
    own = classifier.evidence(str(fast / "classifier"))
    kept = ["split", "label", "prediction", "confidence", "novelty"]
    assert evidence.select(kept).equals(own.select(kept))
    for name in ("uri", "probabilities", "embedding"):
        assert evidence[name].null_count == len(own)
    whole = Path(packaged.files[0]).read_bytes()
    assert str(sample.labelled).encode() not in whole
    assert not any(Path(uri).name.encode() in whole for uri in own["uri"].to_pylist())


def test_a_card_shows_names_as_they_are(fast):
    trained = classifier.load(str(fast / "classifier"))
    odd = "a|b <script>*c*\n# d"
    scores = {**trained.about["scores"], "per_class": {odd: {"support": 1} | dict.fromkeys(
        ("precision", "recall"))}}  # fmt: skip
    about = {**trained.about, "classes": [odd], "scores": scores}
    evidence = classifier.evidence(str(fast / "classifier")).slice(0, 0)
    text = card.written("x", about, evidence, {}, None)
    assert "<script>" not in text and "\n# d" not in text
    assert "a\\|b &lt;script&gt;\\*c\\* \\# d" in text


def test_without_the_photographs_it_says_that_nothing_was_tried(fast, sample, tmp_path, capsys):
    kept = tmp_path / "classifier"
    kept.mkdir()
    for file in (fast / "classifier").iterdir():
        if file.is_file():
            os.link(file, kept / file.name)
    evidence = pq.read_table(kept / "evidence.parquet")
    nowhere = pa.array([f"/nowhere/{i}.jpg" for i in range(len(evidence))])
    os.unlink(kept / "evidence.parquet")
    pq.write_table(evidence.set_column(0, "uri", nowhere), kept / "evidence.parquet")
    done = fr.package(kept, out=tmp_path / "flowers.onnx")
    assert done.agreement is None
    assert "was not tried" in Path(done.card).read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": "flowers.bin"}, "writes a .onnx file"),
        ({"out": "flowers.onnx", "format": "keras"}, "writes a .keras file"),
    ],
)
def test_a_file_is_called_by_its_format(options, said, fast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        fr.package(fast / "classifier", **options)


def test_what_is_there_stays_unless_asked(packaged, fast, tmp_path):
    (tmp_path / "flowers.onnx.md").write_text("mine")
    with pytest.raises(UsageError, match=r"flowers\.onnx\.md is there already"):
        fr.package(fast / "classifier", out=tmp_path / "flowers.onnx")
    (tmp_path / "d.onnx").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        fr.package(fast / "classifier", out=tmp_path / "d.onnx", overwrite=True)
    with pytest.raises(UsageError, match="is a package already"):
        fr.package(packaged.files[0], out=tmp_path / "again.onnx")


@pytest.mark.parametrize("option", [{"weights": "random"}, {"keep_features": "kept"}])
def test_a_package_has_its_weights_and_keeps_no_features(
    option, packaged, sample, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="package"):
        fr.label(sample.pile, classifier=packaged.files[0], out="labels", **option)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_package_is_labelled_by_either_engine(engine, packaged, fast, sample, tmp_path):
    if engine == "openvino":
        pytest.importorskip("openvino")
    done = fr.label(sample.pile, classifier=packaged.files[0], out=tmp_path / "l", engine=engine)
    spec = json.loads((tmp_path / "l" / "run.json").read_text())["config"]["base_spec"]
    assert spec["engine"] == engine and done.precision == "float32"
    said = fr.load(fast / "classifier").predict(list(labels_in(tmp_path / "l")))
    assert list(labels_in(tmp_path / "l").values()) == [one.label for one in said]


CROPPED = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 40},
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "resample": 3,
}
OWN = {
    "tokens": (lambda: onnx_models.vision_transformer(), {"resample": 3}, {}),
    "the middle": (lambda: onnx_models.vision_transformer(), CROPPED, {"pool": "cls"}),
    "a map": (lambda: onnx_models.convolutional(opset=13), {}, {"pool": "none"}),
    "four at a time": (lambda: onnx_models.convolutional(batch=4), {}, {}),
    "float16": (lambda: onnx_models.convolutional(half=True, opset=20), {}, {"pool": "avg"}),
}


@pytest.mark.parametrize("kind", OWN)
def test_a_base_of_ones_own_is_packaged(kind, sample, local_ray, tmp_path):
    model, pixels, options = OWN[kind]
    base = onnx_models.laid_out(tmp_path / "encoder", model(), **pixels)
    fr.extract(
        sample.labelled, out=tmp_path / "features", base=base, precision="float32", **options
    )
    fr.train(tmp_path / "features", out=tmp_path / "classifier", recipe="logistic")
    done = fr.package(tmp_path / "classifier", out=tmp_path / "own.onnx")
    files = photographs_in(sample.labelled)
    own, theirs = fr.load(tmp_path / "classifier"), fr.load(done.files[0])
    for one, other in zip(own.predict(files), theirs.predict(files), strict=True):
        assert abs(one.confidence - other.confidence) < 2e-3
    session = onnxruntime.InferenceSession(done.files[0])
    alone = []
    for file in files:
        image = Image.open(file)
        image.draft("RGB", (40, 40) if pixels is CROPPED else (32, 32))
        number = 4 if kind == "four at a time" else 1
        given = {"photographs": np.stack([np.asarray(image.convert("RGB"))] * number)}
        alone.append(session.run(["probabilities"], given)[0][0])
    said = [list(one.probabilities.values()) for one in own.predict(files)]
    assert np.abs(np.array(alone) - said).max() < 0.05
    assert "encoder" in Path(done.card).read_text()
    if kind == "four at a time":
        fr.package(tmp_path / "classifier", out=tmp_path / "own.xml", format="openvino")
    if kind == "the middle":
        with pytest.raises(UsageError, match="--format onnx does"):
            fr.package(tmp_path / "classifier", out=tmp_path / "own.xml", format="openvino")
    if kind == "tokens":
        xml = fr.package(tmp_path / "classifier", out=tmp_path / "own.xml", format="openvino")
        assert xml.agreement["same"] >= xml.agreement["photographs"] - 1
        with pytest.raises(UsageError, match="is an ONNX file"):
            fr.package(tmp_path / "classifier", out=tmp_path / "own.keras", format="keras")


def test_what_onnx_cant_resize_is_told(sample, local_ray, tmp_path):
    model = onnx_models.convolutional()
    base = onnx_models.laid_out(tmp_path / "encoder", model, resample=1)
    fr.extract(sample.labelled, out=tmp_path / "features", base=base)
    fr.train(tmp_path / "features", out=tmp_path / "classifier", recipe="logistic")
    with pytest.raises(FlowerrayError, match="resized by lanczos"):
        fr.package(tmp_path / "classifier", out=tmp_path / "own.onnx")


@pytest.mark.parametrize("size", [(100, 170), (170, 100), (33, 90), (40, 40)])
def test_the_middle_is_the_one_that_flowerray_takes(size):
    spec = BaseSpec(
        *("own", None, 32, "own", "bicubic-dct", "float32", "onnxruntime", "file", ""), crop=40
    )
    text = '<ir_version: 8, opset_import: ["" : 18]>' + packages.resize(spec, "n")
    session = onnxruntime.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    (pixels,) = session.run(None, {"photographs": noise(*size)})
    for one, found in zip(noise(*size), pixels, strict=True):
        stream = io.BytesIO()
        Image.fromarray(one).save(stream, "PNG")
        wanted = decode(stream.getvalue(), 32, "bicubic-dct", Limits(), None, 40)
        apart = np.abs(found.astype(int) - wanted)
        assert apart.max() <= 2 and (apart > 0).mean() < 0.05


def hostile(kind, package, directory):
    """A file that a stranger could send."""
    file = directory / "strange.onnx"
    if kind == "text":
        file.write_text("no model at all")
        return file
    if kind == "cut short":
        file.write_bytes(Path(package).read_bytes()[:-1000])
        return file
    model = onnx.load(package)
    if kind == "external":
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
    elif kind == "inner external":
        body = helper.make_graph([], "body", [], [])
        body.initializer.add().data_location = TensorProto.EXTERNAL
        model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=body))
    elif kind == "operator":
        model.graph.node[0].domain = "com.stranger"
    elif kind == "10 GB":
        model.graph.initializer[0].dims[:] = [10 * 10**9]
    elif kind == "no package":
        del model.metadata_props[:]
    elif kind == "unknown operator":
        model.graph.node[0].op_type = "Format"
    elif kind == "other classes":
        for one in model.metadata_props:
            if one.key == "flowerray":
                one.value = json.dumps({**json.loads(one.value), "classes": ["a", "b"]})
    elif kind == "no features":
        for node in model.graph.node:
            node.output[:] = ["other" if name == "features" else name for name in node.output]
    elif kind == "no record":
        for one in model.metadata_props:
            one.value = "[]" if one.key == "flowerray" else one.value
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "no ONNX file"),
        ("cut short", "no ONNX file"),
        ("external", "weights in other files, which no package has: refused"),
        ("inner external", "weights in other files, which no package has: refused"),
        ("operator", r"the custom operator com\.stranger\."),
        ("unknown operator", "Format"),
        ("10 GB", "more than 2 GB of weights are declared"),
        ("no package", "no package of a classifier"),
        ("other classes", "damaged package"),
        ("no features", "input 'features'"),
        ("no record", "damaged package"),
    ],
)
def test_a_strangers_file_is_refused_in_a_line(kind, said, packaged, sample, tmp_path, capsys):
    file = hostile(kind, packaged.files[0], tmp_path)
    photograph = photographs_in(sample.labelled)[0]
    assert cli.main(["predict", photograph, "--classifier", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line) and "strange.onnx" in line


def test_a_file_that_is_not_there_is_told(sample, capsys, tmp_path):
    photograph = photographs_in(sample.labelled)[0]
    missing = str(tmp_path / "missing.onnx")
    assert cli.main(["predict", photograph, "--classifier", missing]) == 1
    assert "missing.onnx" in capsys.readouterr().err


def test_the_command_says_what_it_wrote(fast, tmp_path, capfd):
    out = tmp_path / "flowers.onnx"
    out.write_text("an older one")
    words = ["package", str(fast / "classifier"), "--out", str(out), "--overwrite"]
    assert cli.main(words) == 0
    said = capfd.readouterr()
    assert said.out.splitlines()[0].endswith(str(out)) and f"card: {out}.md" in said.out
    assert all(line.startswith("package: ") for line in said.err.splitlines())
    assert cli.main(words[:-1]) == 2 and cli.main([*words, "--format", "keras"]) == 2
