"""The shared generators of inputs after public bug reports, and what is right of each."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import SHARED

from flowerray.cli import main
from flowerray.errors import FlowerrayError
from flowerray.heads import classifier
from flowerray.outputs.record import read_output
from flowerray.outputs.shards import read_table
from flowerray.settings import ExtractSettings
from flowerray.sources.labelled import photographs_to_extract
from flowerray.sources.listing import FOUND

TOLD = {
    "comma-in-name.csv": "line 2 has 3 fields",
    "cp1252.csv": "line 2 is no UTF-8",
    "hf-renamed.parquet": "holds the pictures themselves",
    "hf.parquet": "holds the pictures themselves",
    "list-labels.parquet": "column label .* is list",
    "no-header.csv": "has no header",
    "nul.csv": "has a NUL byte",
    "windows.csv": "an absolute path of Windows",
}
NUMBERED = {"int-labels.parquet": ("0", "1"), "float-labels.parquet": ("0", "1")}
UNLABELLED = {"null-labels.parquet"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes what the shared generator of a name makes; returns the directory."""

    def make(name):
        generator = SHARED / "cases" / f"{name}.py"
        if not generator.is_file():
            pytest.skip(f"the shared generators are not at {generator.parent}")
        out = tmp_path_factory.mktemp(name)
        subprocess.run([sys.executable, generator, out], check=True)
        return out

    return make


def listed(images):
    batches = photographs_to_extract(ExtractSettings(images=str(images), out="-"))
    return pa.Table.from_batches(batches, FOUND)


def counted(images):
    table = listed(images)
    return Counter(zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_every_shared_table_is_read_or_told(made):
    here = made("tables")
    for file in sorted(here.iterdir()):
        if file.name == "photos":
            continue
        if file.name in TOLD:
            with pytest.raises(FlowerrayError, match=TOLD[file.name]):
                listed(file)
            continue
        table = listed(file)
        assert len(table) == (18 if file.name == "split-test.csv" else 20), file.name
        with_label = table["label"].drop_null().to_pylist()
        if file.suffix == ".txt" or file.name in UNLABELLED:
            assert not with_label
        elif file.name.startswith("bool"):
            assert set(with_label) == {"True", "False"}
        else:
            assert set(with_label) == set(NUMBERED.get(file.name, ("rose", "tulip"))), file.name
        assert all((here / uri).exists() for uri in table["uri"].to_pylist()), file.name
        assert not table["size"].drop_null().to_pylist(), file.name


def test_the_shared_split_folders_are_recognised(made, capsys):
    here = made("split_names")
    both = {(c, s): 8 for c in ("rose", "tulip") for s in ("train", "valid")}
    drawn = {(c, s): n for c in ("rose", "tulip") for s, n in (("train", 7), ("valid", 1))}
    for name in ("Train-Val", "TRAIN-VALID", "train-dev", "train-val-test", "beside"):
        assert counted(here / name) == both, name
    said = capsys.readouterr().err
    assert "train-val-test/test is left out, for a test" in said and "beside/daisy is left" in said
    for name in ("training-testing", "train-test", "nested", "macosx"):
        assert counted(here / name) == drawn, name
    said = capsys.readouterr().err
    assert f"flowerray label {here}/training-testing/testing" in said
    assert f"classes are looked for in {here}/nested/flowers" in said
    spelled = counted(here / "spelled")
    assert {label for label, _ in spelled} == {"Rose", "rose", "tulip"}
    assert spelled["rose", "train"] + spelled["rose", "valid"] == 16
    with pytest.raises(FlowerrayError, match=r"yolo/labels holds \.txt files alone"):
        listed(here / "yolo")
    assert main(["check", str(here / "spelled"), "--only", "similar_names"]) == 0
    assert "8 of 'Rose', 16 of 'rose'" in capsys.readouterr().out


def test_a_class_all_rejected_is_told_with_count_and_reason(made, on_local_ray, tmp_path, capsys):
    here, features = made("class_of_heic"), str(tmp_path / "f")
    assert main(["extract", str(here), "--out", features, "--base", "thumbnail"]) == 0
    assert main(["train", features, "--out", str(tmp_path / "c")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "class 'lily' of" in error and "all 10 photographs rejected, 10 not_an_image" in error


@pytest.mark.parametrize("source", ["hard", "hard.csv"])
def test_hard_names_of_classes_go_all_the_way(made, on_local_ray, tmp_path, source):
    here = made("few")
    features, trained, labels = (str(tmp_path / name) for name in ("f", "c", "l"))
    exported = str(tmp_path / "sorted")
    extract = ["extract", str(here / source), "--out", features, "--base", "thumbnail"]
    assert main(extract) == 0
    assert main(["train", features, "--out", trained]) == 0
    classes = classifier.load(trained).classes
    assert len(classes) == (11 if source == "hard" else 8)
    pile = str(here / ("hard" if source == "hard" else "byrow"))
    assert main(["label", pile, "--classifier", trained, "--out", labels]) == 0
    assert main(["report", labels, "--out", str(tmp_path / "r.html")]) == 0
    assert main(["export", labels, "--format", "folders", "--out", exported]) == 0
    assert main(["export", labels, "--format", "csv", "--out", str(tmp_path / "l.csv")]) == 0


@pytest.mark.parametrize("source", ["pairs", "uneven"])
def test_few_photographs_a_class_can_be_trained_on(made, on_local_ray, tmp_path, source):
    features = str(tmp_path / "f")
    extract = ["extract", str(made("few") / source), "--out", features, "--base", "thumbnail"]
    assert main(extract) == 0
    assert main(["train", features, "--out", str(tmp_path / "c")]) == 0
    labels = str(tmp_path / "l")
    pile = str(made("few") / "byrow")
    assert main(["label", pile, "--classifier", str(tmp_path / "c"), "--out", labels]) == 0
    table = read_table(read_output(labels, "labels"), ["label", "error"])
    assert len(table) and table["error"].null_count == len(table)


@pytest.mark.parametrize("name", ["random", "keras"])
def test_a_script_beside_the_user_called_as_a_library_stops_no_job(few, tmp_path, name):
    generator = SHARED / "cases" / "cwd_shadow.py"
    if not generator.is_file():
        pytest.skip(f"the shared generators are not at {generator.parent}")
    subprocess.run([sys.executable, generator, tmp_path, name], check=True)
    command = [Path(sys.executable).parent / "flowerray", "run", few.labelled, few.pile]
    done = subprocess.run(
        [*command, "--out", tmp_path / "results", "--base", "thumbnail"],
        cwd=tmp_path / name,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "lesson" not in done.stdout + done.stderr, done.stderr
    labels = read_output(str(tmp_path / "results" / "labels"), "labels")
    table = read_table(labels, ["label", "error"])
    assert len(table) == 16 and table["label"].null_count == 4  # the sample's own broken files


def test_shared_tables_go_all_the_way(made, on_local_ray, tmp_path, capsys):
    """Three of them, one of which has numbers for classes, and one without labels as the pile."""
    here = made("tables")
    for name, classes in (
        ("semicolon.csv", ["rose", "tulip"]),
        ("int-labels.parquet", ["0", "1"]),
        ("bool-labels.parquet", ["False", "True"]),
    ):
        features, trained, labels = (str(tmp_path / f"{name}.{what}") for what in "fcl")
        assert main(["extract", str(here / name), "--out", features, "--base", "thumbnail"]) == 0
        assert main(["train", features, "--out", trained]) == 0
        assert classifier.load(trained).classes == classes
        pile = next(here.glob("*.txt"))
        assert main(["label", str(pile), "--classifier", trained, "--out", labels]) == 0
        table = read_table(read_output(labels, "labels"), ["label", "error"])
        assert len(table) == 20 and set(table["label"].to_pylist()) <= set(classes)
        assert table["error"].null_count == 20
        capsys.readouterr()
    for name in UNLABELLED:
        features = str(tmp_path / "none")
        assert main(["extract", str(here / name), "--out", features, "--base", "thumbnail"]) == 0
        assert main(["train", features, "--out", str(tmp_path / "c")]) == 1
        assert "has no labelled photographs" in capsys.readouterr().err


def test_a_shared_split_with_a_test_is_labelled_and_judged_by_it(
    made, on_local_ray, tmp_path, capsys
):
    here = made("split_names") / "train-val-test"
    features, trained, labels = (str(tmp_path / name) for name in "fcl")
    assert main(["extract", str(here), "--out", features, "--base", "thumbnail"]) == 0
    assert main(["train", features, "--out", trained]) == 0
    label = ["label", str(here / "test"), "--classifier", trained, "--out", labels]
    assert main(label) == 0
    capsys.readouterr()
    assert main(["evaluate", labels, "--truth", "folders", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["photographs"] == len(list((here / "test").rglob("*.jpg")))
    assert set(scores["per_class"]) == {"rose", "tulip"}
