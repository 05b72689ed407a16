"""The three jobs, one after the other, on drawn photographs and real VGG16 weights."""

import csv
import json

import pyarrow.dataset
import pytest

from flowerray.cli import main
from flowerray.commands.evaluate import evaluate
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.train import train
from flowerray.outputs.record import read_output
from flowerray.outputs.shards import read_table
from flowerray.settings import ExtractSettings, LabelSettings, TrainSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def features(sample, local_ray, tmp_path_factory):
    out = tmp_path_factory.mktemp("jobs") / "features"
    settings = ExtractSettings(images=str(sample.labelled), out=str(out), shard_size=8, pool="none")
    return extract(settings), out


@pytest.fixture(scope="module")
def classifier(features):
    out = features[1].parent / "classifier"
    return train(TrainSettings(features=str(features[1]), out=str(out))), out


@pytest.fixture(scope="module")
def labels(sample, classifier, local_ray):
    out = classifier[1].parent / "labels"
    settings = LabelSettings(
        images=str(sample.pile),
        classifier=str(classifier[1]),
        out=str(out),
        shard_size=8,
        format="csv",
        gallery=str(out.parent / "labels.png"),
    )
    return label(settings), out


def table_of(out):
    return pyarrow.dataset.dataset(out / "shards").to_table().sort_by("image_id")


def test_features_carry_their_make(features):
    done, out = features
    assert (done.photographs, done.rejected) == (30, {})
    table = table_of(out)
    assert table["image_id"].to_pylist() == list(range(30))
    assert set(table["split"].to_pylist()) == {"train", "valid"}
    assert table.schema.field("features").type == pyarrow.list_(pyarrow.float16(), 7 * 7 * 512)
    for file in (out / "shards").iterdir():
        about = json.loads(pyarrow.parquet.read_schema(file).metadata[b"flowerray"])
        assert about["config"]["base_spec"]["base"] == "vgg16"
        assert about["config"]["base_spec"]["weights_sha256"].startswith("d9a27cc1")


def test_training_gives_scores_history_and_gallery(classifier):
    done, out = classifier
    assert done.classes == ["rose", "sunflower", "tulip"]
    assert done.scores["photographs"] == 3
    assert {f.name for f in out.iterdir()} == {
        "classifier.json",
        "head.keras",
        "evidence.parquet",
        "history.csv",
        "errors.png",
    }
    (fitted,) = csv.DictReader((out / "history.csv").open())  # mlp has no epochs
    assert list(fitted) == ["accuracy", "val_accuracy"]
    assert json.loads((out / "classifier.json").read_bytes())["epochs"] is None


def test_every_photograph_of_the_pile_gets_one_row(sample, labels):
    done, out = labels
    table = table_of(out)
    assert sorted(table["uri"].to_pylist()) == sorted(str(p) for p in sample.pile.iterdir())
    assert done.photographs == 34 and sum(done.labels.values()) == 30
    assert sum(done.rejected.values()) == 4
    for row in table.to_pylist():
        if row["error"]:
            assert (row["label"], row["confidence"], row["top_k"]) == (None, None, None)
            continue
        assert row["label"] == row["top_k"][0]["label"] and len(row["top_k"]) == 3
        assert row["confidence"] == row["top_k"][0]["probability"]
        assert abs(sum(t["probability"] for t in row["top_k"]) - 1) < 1e-4
    rows = list(csv.DictReader((out / "labels.csv").open()))
    assert [row["label"] or None for row in rows] == table["label"].to_pylist()
    assert json.loads(rows[0]["top_k"]) == table["top_k"].to_pylist()[0] or rows[0]["error"]
    assert (out.parent / "labels.png").read_bytes().startswith(b"\x89PNG")


def test_the_labels_are_right(sample, labels):
    scores = evaluate(str(labels[1]), str(sample.truth))
    assert scores["photographs"] == 30 and scores["without_label"] == 4
    assert scores["accuracy"] >= 0.9


def test_the_whole_path_counts_before_its_end(labels, tmp_path):
    uris = read_table(read_output(str(labels[1]), "labels"), ["uri", "label"]).to_pylist()
    row = next(row for row in uris if row["label"])
    folder, name = row["uri"].rsplit("/", 2)[1:]
    lines = f"{name},wrong\n{folder}/{name},{row['label']}\n"
    (tmp_path / "truth.csv").write_text(f"file,label\n{lines}")
    scores = evaluate(str(labels[1]), str(tmp_path / "truth.csv"))
    assert (scores["photographs"], scores["accuracy"]) == (1, 1.0)


def test_labelling_the_labelled_folder_is_scored_by_its_folders(sample, classifier, tmp_path):
    label(
        LabelSettings(
            images=str(sample.labelled), classifier=str(classifier[1]), out=str(tmp_path / "l")
        )
    )
    scores = evaluate(str(tmp_path / "l"), "folders")
    assert scores["photographs"] == 30 and scores["accuracy"] >= 0.95


def test_a_finished_job_does_nothing_again(sample, features, classifier, labels, capsys):
    stamps = {f: f.stat().st_mtime_ns for f in labels[1].rglob("*.parquet")}
    again = label(
        LabelSettings(
            images=str(sample.pile), classifier=str(classifier[1]), out=str(labels[1]), shard_size=8
        )
    )
    assert again.photographs == labels[0].photographs and again.labels == labels[0].labels
    assert {f: f.stat().st_mtime_ns for f in labels[1].rglob("*.parquet")} == stamps
    assert "34 of 34 are done already" in capsys.readouterr().err
    assert train(TrainSettings(features=str(features[1]), out=str(classifier[1]))) == classifier[0]


def refusal(capsys, *arguments):
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 1 and error.startswith("flowerray: ")
    return error


def test_outputs_are_never_mixed(sample, features, classifier, labels, tmp_path, capsys):
    images, out = sample.labelled, features[1]
    assert "layer: None / block5_conv3" in refusal(
        capsys, "extract", images, "--out", out, "--layer", "block5_conv3"
    )
    assert "other photographs" in refusal(capsys, "extract", sample.pile, "--out", out)
    assert "holds features" in refusal(
        capsys, "label", sample.pile, "--classifier", classifier[1], "--out", out
    )
    assert "other features or settings" in refusal(
        capsys, "train", out, "--out", classifier[1], "--seed", 5
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("...")
    assert "thesis.doc" in refusal(capsys, "extract", images, "--out", tmp_path / "mine")
    assert "thesis.doc" in refusal(capsys, "train", out, "--out", tmp_path / "mine")
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.doc"]
    assert "give the --out of `flowerray train`" in refusal(
        capsys, "label", sample.pile, "--classifier", labels[1], "--out", tmp_path / "l"
    )
    assert not (tmp_path / "l").exists()


def test_features_of_two_makes_are_refused(sample, features, tmp_path, capsys):
    import shutil

    mixed = tmp_path / "mixed"
    shutil.copytree(features[1], mixed)
    other = ExtractSettings(
        images=str(sample.labelled), out=str(tmp_path / "other"), shard_size=8, layer="block5_conv3"
    )
    extract(other)
    shutil.copy(tmp_path / "other" / "shards" / "000000000008.parquet", mixed / "shards")
    error = refusal(capsys, "train", mixed, "--out", tmp_path / "c")
    assert "layer: None / block5_conv3" in error and "000000000008.parquet" in error
    (mixed / "shards" / "000000000008.parquet").unlink()
    assert "lacks 1 of its 4 shards" in refusal(capsys, "train", mixed, "--out", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_articles_recipe(features, tmp_path):
    done = train(
        TrainSettings(
            features=str(features[1]), out=str(tmp_path / "c"), recipe="article", epochs=2
        )
    )
    history = list(csv.DictReader((tmp_path / "c" / "history.csv").open()))
    assert list(history[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert len(history) == 2 and done.scores["photographs"] == 3


def test_real_photographs_are_learned(flower_photos, local_ray, tmp_path):
    """A seventh of the set, for time; benchmarks/flowers.py does all of it."""
    features, classifier = tmp_path / "features", tmp_path / "classifier"
    images = tmp_path / "list.csv"
    rows = [
        f"{path},{path.parent.name},{split}"
        for split, count in (("train", 50), ("valid", 20))
        for folder in sorted((flower_photos / split).iterdir())
        for path in sorted(folder.iterdir())[:count]
    ]
    images.write_text("uri,label,split\n" + "\n".join(rows) + "\n")
    extract(ExtractSettings(images=str(images), out=str(features)))
    done = train(TrainSettings(features=str(features), out=str(classifier)))
    assert done.scores["photographs"] == 60 and done.scores["errors"] <= 14
