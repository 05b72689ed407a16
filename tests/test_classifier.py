import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from flowerray.bases.engines.keras import open_head
from flowerray.errors import FlowerrayError
from flowerray.heads import classifier
from flowerray.heads.checkpoint import CHECKPOINT, Checkpoint
from flowerray.heads.data import TrainingData
from flowerray.heads.models import predict, without_optimizer
from flowerray.heads.recipes import RECIPES
from flowerray.stores.folder import Folder

MARK = "/tmp/flowerray-a-strangers-code-ran"


@pytest.fixture(scope="module")
def data():
    chance = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = chance.gamma(1.0, 1.0, (60, 2, 2, 8)).astype(np.float16)
    features[np.arange(60), :, :, labels] += 2
    return TrainingData(features[:48], labels[:48], features[48:], labels[48:], 3)


@pytest.fixture(scope="module", params=["mlp", "logistic", "article"])
def model(request, data):
    *_, (_, fitted) = RECIPES[request.param](data, 3, 0, None)
    return fitted


SPEC = {
    "base": "vgg16",
    "layer": None,
    "input_size": 224,
    "preparation": "vgg",
    "resize": "bilinear-dct",
    "precision": "float32",
    "engine": "keras",
    "weights": "imagenet",
    "weights_sha256": "0" * 64,
}


def written(directory, head):
    directory.mkdir()
    (directory / "head.keras").write_bytes(head)
    about = {
        "format": classifier.FORMAT,
        "classes": ["a", "b", "c"],
        "feature_shape": [2, 2, 8],
        "base_spec": SPEC,
        "head_sha256": hashlib.sha256(head).hexdigest(),
    }
    (directory / "classifier.json").write_text(json.dumps(about))
    return str(directory)


def test_a_head_comes_back_as_it_was(model, data, tmp_path):
    head = classifier.head_bytes(without_optimizer(model))
    loaded = classifier.load(written(tmp_path / "c", head))
    assert loaded.classes == ["a", "b", "c"] and loaded.feature_shape == (2, 2, 8)
    again = open_head(loaded.head)
    np.testing.assert_allclose(
        predict(again, data.features), predict(model, data.features), atol=1e-6
    )


@pytest.mark.parametrize("recipe", ["mlp", "logistic"])
def test_two_classes_are_learned_as_well(data, recipe):
    two = data.labels < 2
    pair = TrainingData(data.features[two], data.labels[two], data.features, data.labels, 2)
    *_, (numbers, model) = RECIPES[recipe](pair, None, 0, None)
    assert numbers["accuracy"] > 0.9
    np.testing.assert_allclose(predict(model, pair.features).sum(axis=1), 1, atol=1e-5)


def strangers(kind):
    import keras

    def run(x):
        open(MARK, "w").close()
        return x

    features = keras.Input((2, 2, 8))
    flat = keras.layers.Flatten()(features)
    if kind == "lambda":
        flat = keras.layers.Lambda(run, output_shape=(32,))(flat)
    elif kind == "nested lambda":
        inner = keras.Input((32,))
        flat = keras.Model(inner, keras.layers.Lambda(run, output_shape=(32,))(inner))(flat)
    elif kind == "custom layer":

        @keras.saving.register_keras_serializable("stranger")
        class Own(keras.layers.Dense):
            pass

        flat = Own(3)(flat)
    return keras.Model(features, keras.layers.Dense(3)(flat))


@pytest.mark.parametrize("kind", ["lambda", "nested lambda", "custom layer"])
def test_a_strangers_code_is_refused(kind, tmp_path):
    head = classifier.head_bytes(strangers(kind))
    with pytest.raises(FlowerrayError, match="refused, since it could run code"):
        classifier.load(written(tmp_path / "c", head))
    assert not os.path.exists(MARK)


def test_a_layer_under_the_name_of_another_is_refused(model, tmp_path):
    with zipfile.ZipFile(io.BytesIO(classifier.head_bytes(model))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    last = config["config"]["layers"][-1]
    last |= {"module": "os", "class_name": "function", "registered_name": "keras.layers.Dense"}
    files["config.json"] = json.dumps(config).encode()
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(FlowerrayError, match=r"holds os\.function, .*refused"):
        classifier.load(written(tmp_path / "c", forged.getvalue()))


class Pickled:
    def __reduce__(self):
        return (open, (MARK, "w"))


def test_a_pickled_object_is_refused(tmp_path):
    with pytest.raises(FlowerrayError, match="is no Keras model"):
        classifier.load(written(tmp_path / "c", pickle.dumps(Pickled())))
    with zipfile.ZipFile(tmp_path / "head.zip", "w") as archive:
        archive.writestr("config.json", pickle.dumps(Pickled()))
    with pytest.raises(FlowerrayError, match="is no Keras model"):
        classifier.load(written(tmp_path / "d", (tmp_path / "head.zip").read_bytes()))
    assert not os.path.exists(MARK)


def test_a_damaged_classifier_is_told(model, tmp_path):
    directory = tmp_path / "c"
    written(directory, classifier.head_bytes(model))
    (directory / "head.keras").write_bytes(b"other")
    with pytest.raises(FlowerrayError, match="not the head that"):
        classifier.load(str(directory))
    (directory / "classifier.json").write_text("{")
    with pytest.raises(FlowerrayError, match="can't be read"):
        classifier.load(str(directory))
    shutil.rmtree(directory)
    with pytest.raises(FlowerrayError, match="no classifier in"):
        classifier.load(str(directory))


def forged(head, change):
    """`head` with its config changed in place."""
    with zipfile.ZipFile(io.BytesIO(head)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    change(config)
    files["config.json"] = json.dumps(config).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def an_epochs_model(data):
    _, model = next(RECIPES["article"](data, 2, 0, None))
    return classifier.head_bytes(model)


STRANGE = {"module": "os", "class_name": "function", "config": "system", "registered_name": "x"}
FORGERIES = {
    "optimizer": lambda config: config["compile_config"].update(optimizer=STRANGE),
    "loss": lambda config: config["compile_config"].update(loss=STRANGE),
    "metric": lambda config: config["compile_config"].update(metrics=[["accuracy"], [STRANGE]]),
    "rate": lambda config: config["compile_config"]["optimizer"]["config"].update(
        learning_rate=STRANGE
    ),
    "build": lambda config: config.update(build_config={"input_shape": STRANGE}),
    "layer": lambda config: config["config"]["layers"].append(STRANGE),
    "model": lambda config: config.update(module="os"),
}


@pytest.mark.parametrize("part", FORGERIES)
def test_a_checkpoint_with_a_strangers_object_is_refused(part, data, tmp_path):
    head = an_epochs_model(data)
    classifier.check_layers(head, "it")
    out = Folder.at(tmp_path)
    checkpoint = Checkpoint(out, "same", 1)
    out.write(f"{CHECKPOINT}/1-1.keras", forged(head, FORGERIES[part]))
    progress = {"config_fingerprint": "same", "history": [{"val_loss": 1.0}]}
    out.write(f"{CHECKPOINT}/progress.json", json.dumps(progress).encode())
    for load in (checkpoint.load, lambda: checkpoint.models_after(1)):
        with pytest.raises(FlowerrayError, match=r"1-1\.keras holds os\..*refused"):
            load()
    out.write(f"{CHECKPOINT}/1-1.keras", head)
    history, [before] = checkpoint.load()
    assert len(history) == before.epochs == 1


def test_a_checkpoint_has_a_model_of_each_fold_or_none(data, tmp_path):
    head = an_epochs_model(data)
    out = Folder.at(tmp_path)
    progress = {"config_fingerprint": "same", "history": [{"val_loss": 1.0}]}
    out.write(f"{CHECKPOINT}/progress.json", json.dumps(progress).encode())
    out.write(f"{CHECKPOINT}/1-1.keras", head)
    assert Checkpoint(out, "same", 2).load() == ([], [None, None])
    out.write(f"{CHECKPOINT}/1-2.keras", head)
    history, before = Checkpoint(out, "same", 2).load()
    assert len(history) == 1 and [progress.epochs for progress in before] == [1, 1]
    assert Checkpoint(out, "other", 2).load() == ([], [None, None])
