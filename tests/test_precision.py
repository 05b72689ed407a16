"""The precision ladder: what auto is, int8 through all three jobs, labels at another precision."""

import json
import shutil

import numpy as np
import pytest

from flowerray.bases import hardware, weights
from flowerray.bases.prepared import PreparedBase
from flowerray.bases.spec import BaseSpec
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.train import train
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads.prepared import PreparedHead
from flowerray.outputs.manifest import Manifest, write_listing
from flowerray.outputs.record import Output, read_output
from flowerray.outputs.shards import read_table
from flowerray.pipeline import precision, prepare
from flowerray.pipeline.precision import settled
from flowerray.pipeline.prepare import QUANTISED
from flowerray.settings import ExtractSettings, LabelSettings, TrainSettings
from flowerray.sources.listing import photographs_to_label
from flowerray.sources.photographs import Limits
from flowerray.stores.folder import Folder

pytestmark = pytest.mark.slow

needs_openvino = pytest.mark.skipif(
    not hardware.has_openvino(), reason="flowerray[openvino] is not installed"
)


def spec(precision, engine="auto", calibration=None):
    return BaseSpec(
        *("vgg16", None, 224, "vgg", "-", precision, engine, "imagenet", "-"),
        calibration=calibration,
    )


def test_auto_is_what_the_hardware_has_and_stays_what_it_was():
    fast = "bfloat16" if hardware.here().bfloat16 else "float32"
    engine = "openvino" if hardware.has_openvino() else "keras"
    assert settled(spec("auto"), None, "cpu") == spec(fast, engine)
    assert settled(spec("auto"), None, "gpu") == spec("bfloat16", "keras")
    before = spec("int8", "openvino", "abc")
    assert settled(spec("auto"), before, "cpu") == before
    assert settled(spec("int8"), before, "cpu") == before
    assert settled(spec("float32", "keras"), before, "cpu") == spec("float32", "keras")


def machine(*gpus, bfloat16=True):
    return hardware.Hardware("-", 2, bfloat16, True, gpus, True)


@pytest.mark.parametrize(
    ("machines", "device", "expected"),
    [
        ([machine("Tesla T4, 7.5")], "gpu", "float16"),
        ([machine("Tesla T4, 7.5")], "auto", "float16"),
        ([machine("Tesla T4, 7.5")], "cpu", "bfloat16"),
        ([machine("A100, 8.0", bfloat16=False)], "auto", "bfloat16"),
        ([machine("A100, 8.0"), machine("Tesla T4, 7.5")], "gpu", "float16"),
        ([machine("Tesla T4, 7.5"), machine()], "auto", "float32"),
        ([machine("A100, 8.0"), machine()], "auto", "bfloat16"),
        ([machine("A100, 8.0"), machine(bfloat16=False)], "auto", "float32"),
    ],
)
def test_auto_is_float16_on_gpus_without_bfloat16(monkeypatch, machines, device, expected):
    monkeypatch.setattr("flowerray.pipeline.tasks.machines", lambda: machines)
    assert precision.fastest(device)[0] == expected


def test_float16_is_of_gpus_alone(monkeypatch):
    monkeypatch.setattr("flowerray.pipeline.tasks.machines", lambda: [machine()])
    for device in ("cpu", "auto"):
        with pytest.raises(UsageError, match="on GPUs alone"):
            settled(spec("float16", "keras"), None, device)
    assert settled(spec("float16", "keras"), None, "gpu").precision == "float16"


def test_evidence_of_another_precision_is_refused(sample, fast, tmp_path):
    trained = tmp_path / "c"
    shutil.copytree(fast / "classifier", trained)
    about = json.loads((trained / "classifier.json").read_bytes())
    about["base_spec"]["precision"] = "bfloat16"
    (trained / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="evidence at bfloat16, not at float32"):
        labels(sample, trained, tmp_path / "l", min_precision=0.9)


def test_who_names_a_backend_of_keras_gets_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert settled(spec("auto"), None, "cpu").engine == "keras"


@needs_openvino
def test_a_converted_base_is_kept_and_a_damaged_one_made_again(
    few, local_ray, tmp_path, capfd, monkeypatch
):
    cache = tmp_path / "cache"
    weights.load("vgg16")
    shutil.copytree(weights.cache_directory(), cache)
    shutil.rmtree(cache / "openvino", ignore_errors=True)
    monkeypatch.setenv("FLOWERRAY_CACHE", str(cache))
    told, features = [], []
    for run in "012":
        out = str(tmp_path / run)
        extract(ExtractSettings(images=str(few.labelled), out=out, engine="openvino"))
        features.append(read_table(read_output(out, "features"), ["uri", "features"]))
        told.append("converting" in capfd.readouterr().err)
        (file,) = (cache / "openvino").iterdir()
        if run == "1":
            file.write_bytes(b"damaged")
    assert told == [True, False, True]
    assert features[0].equals(features[1]) and features[0].equals(features[2])


@needs_openvino
def test_either_engine_labels_with_the_same_classifier(few, local_ray, tmp_path, capfd):
    extract(ExtractSettings(images=str(few.labelled), out=str(tmp_path / "f"), engine="openvino"))
    train(TrainSettings(features=str(tmp_path / "f"), out=str(tmp_path / "c")))
    done = [labels(few, tmp_path / "c", tmp_path / e, engine=e) for e in ("openvino", "keras")]
    assert done[0].labels == done[1].labels and done[1].agreement is None
    recorded = json.loads((tmp_path / "keras" / "run.json").read_bytes())["config"]["base_spec"]
    assert recorded["engine"] == "keras"
    again = labels(few, tmp_path / "c", tmp_path / "keras")
    assert again.computed == 0


@needs_openvino
def test_int8_is_openvinos_and_on_cpus():
    assert settled(spec("int8"), None, "cpu") == spec("int8", "openvino")
    with pytest.raises(UsageError, match="OpenVINO"):
        settled(spec("int8", "keras"), None, "cpu")
    with pytest.raises(UsageError, match="on CPUs"):
        settled(spec("int8"), None, "gpu")


@pytest.fixture(scope="module")
def quantised(sample, local_ray, tmp_path_factory):
    """Features and a classifier in int8."""
    here = tmp_path_factory.mktemp("int8")
    settings = ExtractSettings(
        images=str(sample.labelled), out=str(here / "f"), precision="int8", shard_size=8
    )
    extract(settings)
    train(TrainSettings(features=str(here / "f"), out=str(here / "c")))
    return settings, here


def labels(drawn, classifier, out, **options):
    return label(
        LabelSettings(images=str(drawn.pile), classifier=str(classifier), out=str(out), **options)
    )


def test_agreement_is_of_the_classes_alone_and_of_photographs_not_calibrated_on(
    monkeypatch, tmp_path
):
    (tmp_path / "list.txt").write_text("".join(f"{i}.jpg\n" for i in range(300)))
    found, folder = photographs_to_label(str(tmp_path / "list.txt")), Folder.at(tmp_path)
    listing = write_listing(found, folder, "manifest", 32)
    output = Output(folder, Manifest((listing,)), {})
    calibrated = prepare._sample(output, 128, prepare.SEED)["image_id"].to_pylist()
    seen = []

    def agreement(sample, *arguments):
        seen.append(sample["image_id"].to_pylist())
        return prepare._agreement(sample, *arguments)

    # Of a novel photograph, whose last number is the largest.
    says = {"one": [0.55, 0.40, 0.05, 0.8], "other": [0.42, 0.53, 0.05, 0.8]}
    monkeypatch.setattr(prepare, "_pixels", lambda sample, spec, limits: np.zeros((len(sample), 1)))
    monkeypatch.setattr(
        PreparedBase,
        "open",
        lambda base, threads: lambda pixels: np.tile(says[base.spec], (len(pixels), 1)),
    )
    monkeypatch.setattr("flowerray.pipeline.tasks.task_cpus", lambda: 1)
    monkeypatch.setattr(
        "flowerray.pipeline.tasks.run_once", lambda task, *arguments: agreement(*arguments)
    )
    monkeypatch.setattr(PreparedHead, "open", lambda head, threads: lambda features: features)
    ways = [(PreparedBase(name, []), PreparedHead()) for name in says]
    told = prepare.agreement(output, Limits(), *ways)
    assert told == {"photographs": 128, "same": 0}
    assert len(calibrated) == 128 and not set(calibrated) & set(seen[0])


@needs_openvino
def test_int8_from_photographs_to_labels(sample, quantised, tmp_path):
    settings, here = quantised
    about = json.loads((here / "c" / "classifier.json").read_bytes())["base_spec"]
    assert (about["precision"], about["engine"]) == ("int8", "openvino")
    with np.load(here / "c" / QUANTISED, allow_pickle=False) as base:
        assert sorted(base.files) == ["constants", "graph"]
    done = labels(sample, here / "c", tmp_path / "labels")
    assert done.precision == "int8" and sum(done.labels.values()) == 30
    assert max(done.labels.values()) == min(done.labels.values()) == 10
    assert extract(settings).computed == 0
    (here / "f" / "shards" / "000000000008.parquet").unlink()
    assert extract(settings).computed == 8


@needs_openvino
def test_another_quantised_base_is_refused(sample, quantised, tmp_path):
    _, here = quantised
    shutil.copytree(here / "c", tmp_path / "c")
    (tmp_path / "c" / QUANTISED).write_bytes(b"no archive")
    with pytest.raises(FlowerrayError, match="can't be read"):
        labels(sample, tmp_path / "c", tmp_path / "labels")
    np.savez(tmp_path / "c" / QUANTISED, graph=np.zeros(3), constants=np.zeros(3))
    with pytest.raises(FlowerrayError, match="is not the quantised base"):
        labels(sample, tmp_path / "c", tmp_path / "labels")


@needs_openvino
def test_labels_at_another_precision_say_how_they_agree(sample, local_ray, tmp_path, capfd):
    extract(ExtractSettings(images=str(sample.labelled), out=str(tmp_path / "f")))
    train(TrainSettings(features=str(tmp_path / "f"), out=str(tmp_path / "c")))
    own = labels(sample, tmp_path / "c", tmp_path / "own")
    assert own.agreement is None
    other = labels(sample, tmp_path / "c", tmp_path / "other", precision="int8")
    assert other.precision == "int8" and other.agreement["photographs"] == 30
    assert other.agreement["same"] >= 29
    assert f"for {other.agreement['same']} of 30 photographs" in capfd.readouterr().err
    again = labels(sample, tmp_path / "c", tmp_path / "other", precision="int8")
    assert (again.computed, again.agreement) == (0, other.agreement)
