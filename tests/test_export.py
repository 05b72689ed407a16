"""Labels in other tools' formats, from real shards; each layout is checked against its document."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest
from PIL import Image

from flowerray.cli import main
from flowerray.commands.export import export
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.errors import FlowerrayError, UsageError
from flowerray.exports.directory import STAGING
from flowerray.exports.folders import _names, folder_name
from flowerray.outputs import shards
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import read_output
from flowerray.outputs.schemas import FOR_PEOPLE, LABELS
from flowerray.outputs.setup import open_output
from flowerray.settings import ExportSettings, ExtractSettings, LabelSettings
from flowerray.sources.listing import photographs_to_label
from flowerray.stores import local_path
from flowerray.stores.folder import Folder

CLASSES = ["rose", "sun & flower", "../tulip"]
JUDGED = [("novelty", pa.float32()), ("accepted", pa.bool_())]
SCHEMA = pa.schema([*LABELS, *(f for f in JUDGED if f[0] not in LABELS.names)])

# path in the pile: its row; the row is the path's place among the sorted ones
ROWS = {
    b"a/1.jpg": ("rose", 0.9, True),
    b"a/2 #&?%.jpg": ("rose", 0.8999, False),
    b"b/1.jpg": ("rose", 0.5, True),
    b"b/2.jpg": ("sun & flower", 0.99, True),
    b"c/" + b"x" * 251 + b".jpg": ("rose", 0.7, True),
    b"c/broken.jpg": None,
    b"c/not-utf8-\xff.jpg": ("rose", 0.6, False),
    b"d/" + b"x" * 251 + b".jpg": ("rose", 0.7, True),
    b"d/1.jpg": ("../tulip", 0.95, True),
    "d/花.jpg".encode(): ("../tulip", 0.4, False),
}
LABELLED = [path for path, row in ROWS.items() if row]


def row_of(image_id, uri, judged):
    path = os.fsencode(local_path(uri))
    found = next(row for end, row in ROWS.items() if path.endswith(b"/" + end))
    row = dict.fromkeys(SCHEMA.names) | {"image_id": image_id, "uri": uri}
    if found is None:
        return row | {"error": "truncated", "error_detail": "image file is truncated"}
    name, confidence, accepted = found
    top_k = [{"label": name, "probability": confidence}]
    row |= {"label": name, "confidence": confidence, "top_k": top_k}
    return row | ({"novelty": 0.25, "accepted": accepted} if judged else {})


def write_labels(out, images, row_of, shard_size=3):
    """The output of a labelling, as `flowerray label` would have written it."""
    settings = LabelSettings(
        images=str(images), classifier="c", out=str(out), shard_size=shard_size, overwrite=True
    )
    config = {"classifier": "0123456789abcdef", "classes": CLASSES, "base_spec": {}, "top_k": 1}
    found = photographs_to_label(str(images))
    output = open_output(Folder.at(out), settings, "labels", config, found)
    for shard in output.missing():
        listed = rows_of(output.folder, output.manifest, shard).to_pylist()
        rows = [row_of(row["image_id"], row["uri"]) for row in listed]
        shards.write_shard(output, shard, pa.Table.from_pylist(rows, SCHEMA))
    return out


@pytest.fixture
def pile(tmp_path):
    for number, path in enumerate(ROWS):
        file = os.path.join(os.fsencode(tmp_path / "pile"), path)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as stream:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "JPEG")
    return tmp_path / "pile"


@pytest.fixture
def labels(pile, tmp_path):
    return write_labels(tmp_path / "labels", pile, lambda i, uri: row_of(i, uri, True))


@pytest.fixture
def exported(labels, tmp_path):
    """Export to tmp_path/out; returns the summary."""

    def run(format, **options):
        options = {"labels": str(labels), "out": str(tmp_path / "out")} | options
        return export(ExportSettings(format=format, **options))

    return run


def tree(root):
    """Every file below `root`, hidden ones aside: its path, and where it leads or what is in it."""
    root = os.fsencode(root)
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            content = (
                os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
            )
            if not name.startswith(b"."):
                found[os.path.relpath(path, root)] = content
    return found


def test_tables_have_every_row_and_column(exported, labels, tmp_path):
    done = exported("csv", out=str(tmp_path / "l.csv"))
    assert (done.photographs, done.left_out) == (len(ROWS), 0)
    rows = list(csv.DictReader((tmp_path / "l.csv").open(newline="")))
    assert list(rows[0]) == FOR_PEOPLE
    wanted = shards.read_table(read_output(str(labels), "labels"), SCHEMA.names).to_pylist()
    assert [r["uri"] for r in rows] == [r["uri"] for r in wanted]
    assert [r["label"] or None for r in rows] == [r["label"] for r in wanted]
    assert [json.loads(r["top_k"]) for r in rows] == [r["top_k"] for r in wanted]
    assert [float(r["confidence"] or -1) for r in rows] == [r["confidence"] or -1 for r in wanted]
    exported("jsonl", out=str(tmp_path / "l.jsonl"))
    told = [json.loads(line) for line in (tmp_path / "l.jsonl").open()]
    assert told == [{name: row[name] for name in FOR_PEOPLE} for row in wanted]


def test_a_table_again_is_the_same_and_replaces_nothing_else(exported, tmp_path):
    out = tmp_path / "new" / "l.csv"
    exported("csv", out=str(out))
    before = out.read_bytes()
    exported("csv", out=str(out))
    assert out.read_bytes() == before and os.listdir(out.parent) == ["l.csv"]
    with pytest.raises(FlowerrayError, match="is no jsonl export"):
        exported("jsonl", out=str(out))
    with pytest.raises(FlowerrayError, match="is a directory"):
        exported("jsonl", out=str(out.parent))
    (tmp_path / "link").symlink_to(out)
    for other in (tmp_path / "link", "/dev/null"):
        with pytest.raises(FlowerrayError, match="link or device"):
            exported("csv", out=str(other))
    assert out.read_bytes() == before


def test_only_some(exported, tmp_path):
    out = tmp_path / "l.csv"
    assert exported("csv", out=str(out), min_confidence=0.9).photographs == 3
    done = exported("csv", out=str(out), min_confidence=0.7, accepted_only=True)
    rows = list(csv.DictReader(out.open(newline="")))
    assert (done.photographs, done.left_out) == (5, len(ROWS) - 5) == (len(rows), len(ROWS) - 5)
    assert {row["accepted"] for row in rows if "accepted" in row} <= {"True"}


def test_accepted_only_needs_verdicts(pile, tmp_path):
    labels = write_labels(tmp_path / "bare", pile, lambda i, uri: row_of(i, uri, False))
    settings = {"labels": str(labels), "format": "folders", "out": str(tmp_path / "out")}
    with pytest.raises(FlowerrayError, match="--min-precision or --min-confidence"):
        export(ExportSettings(**settings, accepted_only=True))
    assert not (tmp_path / "out").exists()
    assert export(ExportSettings(**settings)).photographs == len(LABELLED)


def check_label_studio(tasks, configuration):
    """What https://labelstud.io/guide/predictions asks of tasks for a labelling configuration."""
    view = xml.etree.ElementTree.fromstring(configuration)
    image, choices = view.find("Image"), view.find("Choices")
    assert choices.get("toName") == image.get("name")
    assert len({task["predictions"][0]["result"][0]["id"] for task in tasks}) == len(tasks)
    for task in tasks:
        assert isinstance(task["data"][image.get("value").removeprefix("$")], str)
        (prediction,) = task["predictions"]
        assert isinstance(prediction["model_version"], str) and 0 <= prediction["score"] <= 1
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (choices.get("name"), image.get("name"))
        assert result["type"] == choices.tag.lower() == "choices"
        (chosen,) = result["value"]["choices"]
        assert chosen in [choice.get("value") for choice in choices]


def test_label_studio(exported, pile, tmp_path):
    done = exported("labelstudio", out=str(tmp_path / "t.json"))
    tasks = json.loads((tmp_path / "t.json").read_bytes())
    assert done.photographs == len(tasks) == len(LABELLED)
    check_label_studio(tasks, done.labelling_configuration)
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"0123456789abcdef"}
    assert tasks[0]["data"]["uri"] == str(pile / "a/1.jpg")
    assert tasks[0]["data"]["novelty"] == 0.25 and tasks[0]["data"]["accepted"] is True
    served = []  # as Label Studio serves them: the path below its document root is in ?d=
    for task in tasks:
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/" and not address.fragment
        (path,) = parse_qs(address.query, errors="surrogateescape")["d"]
        served.append(os.fsencode("/" + path))
    assert sorted(served) == [os.fsencode(pile) + b"/" + path for path in sorted(LABELLED)]


def test_label_studio_addresses(exported, pile, tmp_path):
    out = tmp_path / "t.json"
    exported(
        "labelstudio", out=str(out), url_root=str(pile), url_prefix="https://flowers.example/p/"
    )
    images = [task["data"]["image"] for task in json.loads(out.read_bytes())]
    assert images[:2] == [
        "https://flowers.example/p/a/1.jpg",
        "https://flowers.example/p/a/2%20%23%26%3F%25.jpg",
    ]
    with pytest.raises(FlowerrayError, match="not below --url-root"):
        exported("labelstudio", out=str(out), url_root=str(pile / "a"))
    assert len(json.loads(out.read_bytes())) == len(LABELLED)


def test_remote_photographs(tmp_path):
    (tmp_path / "list.txt").write_text("s3://flowers/a/1.jpg\ns3://flowers/b/1.jpg\n")
    row = {"label": "rose", "confidence": 0.5, "top_k": [{"label": "rose", "probability": 0.5}]}
    labels = write_labels(
        tmp_path / "labels",
        tmp_path / "list.txt",
        lambda i, uri: dict.fromkeys(SCHEMA.names) | row | {"image_id": i, "uri": uri},
    )
    settings = {"labels": str(labels), "out": str(tmp_path / "out")}
    with pytest.raises(FlowerrayError, match=r"s3://flowers/a/1.jpg is remote, .* --copy"):
        export(ExportSettings(**settings, format="folders"))
    with pytest.raises(FlowerrayError, match="FiftyOne reads local files alone"):
        export(ExportSettings(**settings | {"out": str(tmp_path / "f")}, format="fiftyone"))
    settings["out"] = str(tmp_path / "t.json")
    assert export(ExportSettings(**settings, format="labelstudio")).photographs == 2
    assert (
        json.loads((tmp_path / "t.json").read_bytes())[0]["data"]["image"] == "s3://flowers/a/1.jpg"
    )


def test_fiftyone(exported, pile, tmp_path):
    """The layout that FiftyOne documents for predictions of a FiftyOneImageClassificationDataset;
    FiftyOne itself needs a MongoDB, so it is not run here."""
    done = exported("fiftyone")
    dataset = json.loads((tmp_path / "out" / "labels.json").read_bytes())
    assert set(dataset) == {"classes", "labels"} and dataset["classes"] == CLASSES
    links = {file.stem: os.readlink(file) for file in (tmp_path / "out" / "data").iterdir()}
    paths = {links.get(key, key): found for key, found in dataset["labels"].items()}
    assert sorted(paths) == sorted(str(pile / os.fsdecode(path)) for path in LABELLED)
    assert done.photographs == len(paths) and len(links) == 1
    for path, found in paths.items():
        name, confidence, accepted = ROWS[os.fsencode(os.path.relpath(path, pile))]
        assert CLASSES[found["label"]] == name
        assert found["confidence"] == pytest.approx(confidence)
        assert found["attributes"] == {"novelty": 0.25, "accepted": accepted}


def test_folders_hold_every_labelled_photograph_once(exported, pile, tmp_path):
    done = exported("folders")
    found = tree(tmp_path / "out")
    assert (done.photographs, done.left_out) == (len(LABELLED), 1)
    paths = {os.fsencode(pile) + b"/" + path: ROWS[path][0] for path in LABELLED}
    assert sorted(found.values()) == sorted(paths)
    for name, target in found.items():
        folder, _, file = name.partition(b"/")
        assert folder.decode() == folder_name(paths[target])
        assert file.startswith(os.path.basename(target)[:200].removesuffix(b".jpg"))
    assert {b"rose/1.jpg", b"rose/1-2.jpg", b"%2E.%2Ftulip/1.jpg"} <= set(found)
    assert sorted(os.listdir(tmp_path)) == ["labels", "out", "pile"]  # nothing beside it
    assert not (tmp_path / "out" / STAGING).exists()


def test_copies(exported, pile, tmp_path):
    exported("folders")
    links = tree(tmp_path / "out")
    with pytest.raises(FlowerrayError, match=r"an export of another copy: .* --overwrite"):
        exported("folders", copy=True)
    exported("folders", copy=True, overwrite=True)
    copies = tree(tmp_path / "out")
    assert copies == {n: Path(os.fsdecode(link)).read_bytes() for n, link in links.items()}


def test_a_copy_that_fails_is_told_and_made_later(labels, pile, tmp_path, capsys):
    command = ["export", str(labels), "--format", "folders", "--copy", "--out"]
    (pile / "b/2.jpg").rename(tmp_path / "away")
    assert main([*command, str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "b/2.jpg: No such file or directory" in said.err
    assert "1 could not be copied: run the same command again" in said.out
    (tmp_path / "away").rename(pile / "b/2.jpg")
    assert main([*command, str(tmp_path / "out")]) == 0
    assert main([*command, str(tmp_path / "undisturbed")]) == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_name_too_long_for_a_file_is_shortened():
    long = "s3://flowers/" + "ü" * 200 + ".jpg"
    first = next(_names(long, 7))
    assert first.endswith("ü-7.jpg") and len(first.encode()) <= 255
    assert next(_names("s3://flowers/short.jpg", 7)) == "short.jpg"


def test_an_export_that_is_done_is_left_as_it_is(exported, labels, pile, tmp_path, capsys):
    first = exported("folders")
    moved = tmp_path / "out" / "sun & flower" / "1.jpg"
    (tmp_path / "out" / "rose" / "1.jpg").rename(moved)  # somebody sorts by hand
    before = tree(tmp_path / "out")
    assert exported("folders") == first and "is done already" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before
    with pytest.raises(FlowerrayError, match="another min-confidence: choose another --out"):
        exported("folders", min_confidence=0.1)
    os.utime(labels / "shards" / "000000000000.parquet", ns=(0, 0))  # labelled again
    with pytest.raises(FlowerrayError, match="these labels, which have changed since"):
        exported("folders")
    exported("folders", overwrite=True)
    assert moved.is_symlink()  # what somebody put there stays


def test_nothing_of_anothers_is_touched(exported, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("...")
    for format in ("folders", "fiftyone"):
        for overwrite in (False, True):
            with pytest.raises(FlowerrayError, match=r"something else \(thesis.doc\)"):
                exported(format, overwrite=overwrite)
    with pytest.raises(FlowerrayError, match="is a file"):
        exported("folders", out=str(out / "thesis.doc"))
    with pytest.raises(FlowerrayError, match="is no csv export"):
        exported("csv", out=str(out / "thesis.doc"))
    assert tree(out) == {b"thesis.doc": b"..."}


def test_a_crash_at_any_step_is_mended_by_running_again(exported, tmp_path, monkeypatch):
    exported("folders", out=str(tmp_path / "undisturbed"))
    wanted = tree(tmp_path / "undisturbed")
    rename, symlink, replace = Path.rename, os.symlink, os.replace

    class Crash(BaseException):
        pass

    for number in range(40):
        left = list(range(number))

        def step(real, left=left):
            def counted(*arguments):
                if not left:
                    raise Crash
                left.pop()
                return real(*arguments)

            return counted

        out = tmp_path / f"out{number}"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", step(rename))
            patch.setattr(os, "symlink", step(symlink))
            patch.setattr(os, "replace", step(replace))
            try:
                exported("folders", out=str(out))
                break
            except Crash:
                pass
        exported("folders", out=str(out))
        assert tree(out) == wanted and not (out / STAGING).exists()
    assert number > len(LABELLED) + len(CLASSES)  # it crashed at every step once


def test_killed_among_many(tmp_path):
    rows = 30_000
    (tmp_path / "list.txt").write_text("".join(f"/nowhere/{i // 2}.jpg\n" for i in range(rows)))
    row = {"label": "rose", "confidence": 0.5, "top_k": [{"label": "rose", "probability": 0.5}]}
    labels = write_labels(
        tmp_path / "labels",
        tmp_path / "list.txt",
        lambda i, uri: dict.fromkeys(SCHEMA.names) | row | {"image_id": i, "uri": uri},
        shard_size=512,
    )
    out = tmp_path / "out"
    arguments = ["export", labels, "--format", "folders", "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerray.cli", *map(str, arguments)], stderr=subprocess.PIPE
    )
    building = out / STAGING / "content" / "rose"
    while process.poll() is None and not building.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = export(ExportSettings(labels=str(labels), format="folders", out=str(out)))
    assert done.photographs == rows == len(os.listdir(out / "rose"))
    assert sorted(os.listdir(out)) == [".flowerray.json", ".flowerray.list", "rose"]


def test_labels_that_are_not_whole(exported, labels, tmp_path):
    shard = labels / "shards" / "000000000003.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200])
    with pytest.raises(FlowerrayError, match="flowerray verify"):
        exported("csv")
    shard.unlink()
    with pytest.raises(FlowerrayError, match="lacks 1 of its 4 shards"):
        exported("csv")
    with pytest.raises(FlowerrayError, match="give the --out of `flowerray label`"):
        exported("csv", labels=str(tmp_path / "nothing"))
    assert not (tmp_path / "out").exists()


def test_options_of_another_format_are_refused():
    for options in ({"copy": True}, {"overwrite": True}, {"url_prefix": "x"}, {"url_root": "/x"}):
        with pytest.raises(UsageError, match="is for --format"):
            ExportSettings(labels="l", format="csv", out="o", **options)


def test_a_real_jobs_labels(sample, fast, tmp_path, capsys):
    features, labels = (str(tmp_path / name) for name in ("f", "l"))
    classifier = str(fast / "classifier")
    label(LabelSettings(images=str(sample.pile), classifier=classifier, out=labels, format="csv"))
    assert main(["export", labels, "--format", "csv", "--out", str(tmp_path / "l.csv")]) == 0
    written = (tmp_path / "l.csv").read_bytes()
    assert written == (tmp_path / "l" / "labels.csv").read_bytes() and written.count(b"\n") == 35
    command = ["export", labels, "--format", "folders", "--out", str(tmp_path / "sorted"), "--json"]
    capsys.readouterr()
    assert main(command) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["photographs"], done["left_out"]) == (30, 4)
    # A folder a class is what extract reads.
    again = extract(
        ExtractSettings(images=str(tmp_path / "sorted"), out=features, base="thumbnail")
    )
    assert again.photographs == 30 and again.rejected == {}
