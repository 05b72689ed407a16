import base64
import csv
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import barriers

from flowerray.cli import main
from flowerray.commands.label import label
from flowerray.commands.report import report
from flowerray.commands.train import train
from flowerray.errors import FlowerrayError
from flowerray.heads import classifier
from flowerray.outputs import shards
from flowerray.outputs.derived import accepted_labels
from flowerray.outputs.record import read_output
from flowerray.reports.classifier_page import _curve, _reaches
from flowerray.reports.labels_page import _Budget, _sheets, _Tally
from flowerray.settings import AcceptSettings, LabelSettings, ReportSettings, TrainSettings
from flowerray.trust.acceptance import asked_for

# A slash ends a name, so the second lies in a folder "<"; a page that is not careful runs it.
HOSTILE = (
    '<img src=x onerror="window.broken=1">.jpg',
    "</script><script>window.broken=1<.jpg",
    "quo\"te's, comma\nnew line.jpg",
    "=1+1 ünïcödé 花 \u202egpj.jpg",
)


@pytest.fixture(scope="module")
def trained(fast, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "classifier"
    train(TrainSettings(features=fast / "whole", out=out, recipe="article", epochs=3))
    return out


@pytest.fixture(scope="module")
def full_classifier(trained, sample, tmp_path_factory):
    """The same with figures to look for, and photographs and names that are odd."""
    directory = tmp_path_factory.mktemp("full") / "classifier"
    shutil.copytree(trained, directory)
    about = json.loads((directory / "classifier.json").read_bytes())
    bins = [
        {
            "low": i / 15,
            "high": (i + 1) / 15,
            "photographs": i,
            "confidence": (i + 0.5) / 15 if i else None,
            "accuracy": i / 15 if i else None,
        }
        for i in range(15)
    ]
    about["calibration"] = {
        "source": "cross-validation",
        "photographs": 105,
        "temperature": 1.25,
        "ece_before": 0.0811,
        "ece_after": 0.0233,
        "bins": bins,
    }
    about["mistakes"] = [
        {
            "uri": str(next(sample.labelled.rglob("*.jpg"))),
            "original_label": "tulip",
            "prediction": "rose",
            "confidence": 0.75,
        },
        {
            "uri": f"/nowhere/{HOSTILE[0]}",
            "original_label": "rose",
            "prediction": "tulip",
            "confidence": 0.5,
        },
    ]
    (directory / "classifier.json").write_text(json.dumps(about))
    chance = np.random.default_rng(0)
    truth = np.repeat(about["classes"], 60)
    confidence = chance.uniform(0.4, 1, len(truth)).astype(np.float32)
    wrong = chance.random(len(truth)) > confidence
    prediction = np.where(wrong, np.roll(truth, 60), truth)
    evidence = {
        "uri": [f"{i}.jpg" for i in range(len(truth))],
        "split": np.where(np.arange(len(truth)) % 5 == 0, "valid", "train"),
        "label": truth,
        "prediction": prediction,
        "confidence": confidence,
        "novelty": np.ones(len(truth), np.float32),
    }
    pq.write_table(pa.table(evidence), directory / "evidence.parquet")
    return directory


@pytest.fixture(scope="module")
def labelled(trained, sample, tmp_path_factory):
    """Labels of a pile with hostile names in it, as they always were."""
    directory = tmp_path_factory.mktemp("labels")
    pile = directory / "pile"
    shutil.copytree(sample.pile, pile)
    drawing = next(sample.labelled.rglob("*.jpg"))
    for name in HOSTILE:
        (pile / name).parent.mkdir(exist_ok=True)
        shutil.copy(drawing, pile / name)
    settings = {"images": str(pile), "out": str(directory / "labels"), "shard_size": 8}
    label(LabelSettings(**settings, classifier=str(trained)))
    return directory / "labels"


def as_accepted(source, directory, classes=()):
    """A copy of the labels in `source` with thresholds: the less sure half is not accepted, every
    fifth photograph is novel; `classes` more."""
    shutil.copytree(source, directory)
    run = json.loads((directory / "run.json").read_bytes())
    table = shards.read_table(read_output(str(source), "labels"), ["confidence"])
    middle = float(np.nanmedian(table["confidence"].to_numpy()))
    run["config"]["classes"] += classes
    run["config"] |= {"min_precision": 0.95, "min_confidence": None}
    run["config"]["thresholds"] = {
        name: {"threshold": middle, "precision_bound": 0.951, "photographs": 20}
        for name in run["config"]["classes"]
    }
    run["timing"] = {"photographs": 60, "seconds": 1.5, "startup_seconds": 4.0, "actors": 2}
    run["shift"] = [
        {"name": name, "p": p, "effect": 0.3} for name, p in (("novelty", 0.01), ("class mix", 0.9))
    ]
    (directory / "run.json").write_text(json.dumps(run))
    for file in (directory / "shards").iterdir():
        table = pq.read_table(file).drop_columns(["novelty", "accepted"])
        confidence = table["confidence"].to_numpy()
        rejected = np.isnan(confidence)
        novelty = np.where(np.arange(len(table)) % 5 == 0, 1.5, 0.5).astype(np.float32)
        accepted = (confidence > middle) & (novelty <= 1)
        at = table.column_names.index("top_k") + 1
        table = table.add_column(at, "novelty", pa.array(novelty, mask=rejected))
        table = table.add_column(at + 1, "accepted", pa.array(accepted, mask=rejected))
        pq.write_table(table, file)
    return directory


@pytest.fixture(scope="module")
def full_labels(labelled, tmp_path_factory):
    """The same with all that labels may have."""
    return as_accepted(labelled, tmp_path_factory.mktemp("full-labels") / "labels")


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text of each script and style."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.scripts, self.styles, self.inside = [], [], [], None
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = {"script": self.scripts, "style": self.styles}.get(tag)
        if self.inside is not None:
            self.inside.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is not None:
            self.inside[-1] += data


def queue_of(file):
    return json.loads(Parsed(file).scripts[0])["queue"]


def made(source, directory, **settings):
    out = directory / "report.html"
    done = report(ReportSettings(source=str(source), out=str(out), **settings))
    assert done.bytes == out.stat().st_size
    assert {entry.name for entry in directory.iterdir()} == {"report.html"}
    return out, done


def test_a_classifier_shows_what_there_is(trained, tmp_path):
    out, done = made(trained, tmp_path)
    html = out.read_text()
    assert html.startswith("<!doctype html>") and done.kind == "classifier"
    assert "Confusion matrix" in html and "Loss" in html
    assert "above that of 99% of the training photographs" in html
    about = json.loads((trained / "classifier.json").read_bytes())
    assert f"Observed on {about['calibration']['photographs']} photographs (valid)" in html
    assert done.shown == len(about["mistakes"]) == html.count("data:image/webp")


def test_a_classifier_of_one_epoch_has_no_curves(trained, tmp_path):
    one = tmp_path / "one"
    shutil.copytree(trained, one)
    lines = (one / "history.csv").read_text().splitlines()
    (one / "history.csv").write_text("\n".join(lines[:2]) + "\n")
    (tmp_path / "page").mkdir()
    html = made(one, tmp_path / "page")[0].read_text()
    assert "Training</h2>" not in html


def test_a_classifier_with_everything(full_classifier, tmp_path):
    html = made(full_classifier, tmp_path)[0].read_text()
    assert "8.1%" in html and "2.3%" in html and "at 95% precision" in html
    assert "180 photographs (train and valid)" in html
    assert "the file is not there any more" in html  # in place of its thumbnail
    assert HOSTILE[0] not in html


def test_precision_against_coverage_counts_ties_together():
    right = np.array([True, False, True, True, False])
    confidence = np.array([0.9, 0.6, 0.9, 0.6, 0.5])
    thresholds, coverage, precision = _curve(right, confidence)
    assert thresholds.tolist() == [0.9, 0.6, 0.5]
    assert coverage.tolist() == [0.4, 0.8, 1.0]
    assert precision.tolist() == [1.0, 0.75, 0.6]
    found = _reaches(0.75, thresholds, coverage, precision)
    assert found == {"threshold": 0.6, "coverage": 0.8}
    assert _reaches(0.99, thresholds[1:], coverage[1:], precision[1:]) is None


def accepting_of(file):
    return json.loads(Parsed(file).scripts[0])


def test_the_slider_accepts_what_label_would(full_classifier, tmp_path):
    about = accepting_of(made(full_classifier, tmp_path)[0])
    table = classifier.evidence(str(full_classifier))
    classes = json.loads((full_classifier / "classifier.json").read_bytes())["classes"]
    accepted = [step["accepted"] for step in about["steps"]]
    assert max(accepted) > accepted[-1] == 0
    for step in about["steps"]:
        asked = AcceptSettings(labels="labels", min_precision=step["precision"])
        acceptance = asked_for(asked, classes, str(full_classifier))
        taken = acceptance.of(
            table["prediction"].combine_chunks(),
            table["confidence"].to_numpy(),
            table["novelty"].to_numpy(),
        ).to_numpy(zero_copy_only=False)
        wrong = taken & (np.asarray(table["label"]) != np.asarray(table["prediction"]))
        uris = set(np.asarray(table["uri"])[wrong])
        assert (step["accepted"], step["wrong"]) == (taken.sum(), len(uris))
        assert {about["errors"][i]["uri"] for i in step["errors"]} == uris


def test_the_first_screen_is_about_the_work(labelled, full_labels, tmp_path):
    run = json.loads((labelled / "run.json").read_bytes())
    (tmp_path / "page").mkdir()
    html = made(labelled, tmp_path / "page")[0].read_text()
    header = html.partition("<header")[2].partition("</header>")[0]
    assert "<h1><bdi>pile</bdi></h1>" in header and "38 photographs" in header
    assert run["made"]["command"] in header
    assert "Unlike what the classifier was tried on" not in header and "Right, on" not in header
    source = tmp_path / "labels"
    shutil.copytree(full_labels, source)
    run = json.loads((source / "run.json").read_bytes())
    judged = {"labels": 16, "judged": 12, "wrong": 1, "estimate": 11 / 12, "bound": 0.6875}
    run["audited"] = {**judged, "bound_confidence": 0.975, "of": accepted_labels(run)}

    def header_with(**entries):
        (source / "run.json").write_text(json.dumps(run | entries))
        html = made(source, tmp_path / "page")[0].read_text()
        return " ".join(html.partition("<header")[2].partition("</header>")[0].split())

    header = header_with()
    assert "Right, on known classes</dt><dd>≥ 95.1%" in header
    assert "Right, on this pile</dt><dd>≥ 68.8% <small>12 judged, 1 wrong; 97.5% sure" in header
    warning = header.partition("Unlike what the classifier was tried on")[2].partition("</p>")[0]
    assert "how far they are from what it was trained on" in warning
    assert "which class" not in warning and "an audit measured it" in warning
    config = run["config"]
    of_pile = {name: {**one, "of_pile": True} for name, one in config["thresholds"].items()}
    header = header_with(config={**config, "thresholds": of_pile})
    assert "Right, on this pile</dt><dd>≥ 95.1% <small>by earlier audited" in header
    assert "Right, on known classes" not in header
    header = header_with(config={**config, "min_confidence": 0.1})
    assert "Right, on this pile" not in header and "flowerray audit" in header


def test_what_is_not_on_the_page_is_said(full_labels, tmp_path):
    out, _ = made(full_labels, tmp_path, thumbnails=10)
    said = " ".join(out.read_text().split())
    waiting = len(queue_of(out))
    assert re.search(rf"{waiting} of \d+ to review are on this page", said)
    assert f"<code>flowerray review {full_labels}</code> shows all" in said


def test_labels_without_thresholds(labelled, tmp_path):
    out, done = made(labelled, tmp_path)
    html = out.read_text()
    queue = queue_of(out)
    assert done.photographs == 38 and done.shown == 34
    assert len(queue) == 34 and "none is accepted" in html
    confidence = [entry["confidence"] for entry in queue]
    assert confidence == sorted(confidence)
    assert "Accepted</dt>" not in html and "Novel</h2>" in html
    assert "33.3% to 36.7%" in html and "None can have less than 33%" in html
    assert "not_an_image" in html


def test_thumbnails_are_bounded_and_counted(full_labels, tmp_path):
    out, done = made(full_labels, tmp_path, thumbnails=10)
    html = out.read_text()
    assert html.count("data:image/webp") <= 10 and done.shown <= 10
    assert [entry["reason"] for entry in queue_of(out)].count("novel") == 2
    waiting = re.search(r"4 of (\d+) to review are on this page", html)
    assert waiting and int(waiting[1]) > 10
    none = tmp_path / "none"
    none.mkdir()
    assert "data:image" not in made(full_labels, none, thumbnails=0)[0].read_text()


def test_every_class_has_its_share_of_the_contact_sheets():
    tally = _Tally(list("abcd"), _Budget.of(10))
    for name, number in (("a", 1), ("b", 30), ("c", 30)):
        tally.add(rows_of(np.full(number, name), np.linspace(0.3, 0.9, number)))
    assert [(s["name"], len(s["rows"])) for s in _sheets(tally, 9)] == [
        ("a", 1),
        ("b", 4),
        ("c", 4),
    ]
    assert [(s["name"], len(s["rows"])) for s in _sheets(tally, 2)] == [("b", 1), ("c", 1)]


def rows_of(labels, confidence, novelty=0.5, accepted=None):
    """A label shard of these labels."""
    number = len(labels)
    about = {
        "image_id": np.arange(number),
        "uri": [f"/p/{i}.jpg" for i in range(number)],
        "label": labels,
        "confidence": np.asarray(confidence, np.float32),
        "novelty": np.broadcast_to(np.float32(novelty), number),
        "accepted": pa.nulls(number, pa.bool_()) if accepted is None else accepted,
        "error": pa.nulls(number, pa.string()),
        "error_detail": pa.nulls(number, pa.string()),
    }
    return pa.table(about)


def test_a_tally_keeps_the_right_rows_of_many():
    chance, rows = np.random.default_rng(1), 20_000
    confidence = chance.random(rows).astype(np.float32)
    novelty = chance.gamma(1, 0.4, rows).astype(np.float32)
    accepted = (confidence > 0.7) & (novelty <= 1)
    labels = np.where(np.arange(rows) % 50 == 0, "rare", "common")
    table = rows_of(labels, confidence, novelty=novelty, accepted=accepted)
    tally = _Tally(["common", "rare", "never"], _Budget.of(50))
    for start in range(0, rows, 512):
        tally.add(table.slice(start, 512))
    assert tally.labelled.tolist() == [19_600, 400, 0]
    assert tally.accepted.sum() == accepted.sum()
    assert (tally.accepted_bins + tally.other_bins).sum() == rows
    novel, unsure = ~accepted & (novelty > 1), ~accepted & (novelty <= 1)
    assert (tally.novel_waiting, tally.unsure_count) == (novel.sum(), unsure.sum())
    queue = {row["image_id"] for row in tally.queue()}
    least_sure = np.flatnonzero(unsure)[np.argsort(confidence[unsure], kind="stable")[:10]]
    most_novel = np.flatnonzero(novel)[np.argsort(-novelty[novel], kind="stable")[:10]]
    assert queue == {*least_sure.tolist(), *most_novel.tolist()}
    sheets = _sheets(tally, 25)
    assert [(s["name"], len(s["rows"])) for s in sheets] == [("common", 13), ("rare", 12)]
    for sheet in sheets:
        sure = [row["confidence"] for row in sheet["rows"]]
        assert sure == sorted(sure, reverse=True) and sure[0] - sure[-1] > 0.7


def test_the_policy_names_the_page_s_own_style_and_script(full_labels, full_classifier, tmp_path):
    for i, source in enumerate((full_labels, full_classifier)):
        (tmp_path / str(i)).mkdir()
        page = Parsed(made(source, tmp_path / str(i))[0])
        policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert len(page.scripts) == 3  # data, what fits the page, and its own
        for text in [*page.styles, *page.scripts[1:]]:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
        for _, attributes in page.tags:
            assert not {"style", "onerror", "onclick"} & set(attributes)
            for name in ("src", "href", "xlink:href"):
                value = attributes.get(name) or "#"
                assert value.startswith(("data:", "#"))


def test_what_is_in_the_way_or_not_there(labelled, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert main(["report", str(labelled), "--out", str(out), "--thumbnails", "3", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["kind"] == "labels" and done["shown"] <= 3
    assert main(["report", str(labelled), "--out", str(out), "--thumbnails", "0"]) == 0
    assert "report: " in capsys.readouterr().out
    mine = tmp_path / "mine.html"
    mine.write_text("<p>my own page")
    assert main(["report", str(labelled), "--out", str(mine)]) == 1
    assert "choose another --out" in capsys.readouterr().err
    assert mine.read_text() == "<p>my own page"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 1
    assert "flowerray train" in capsys.readouterr().err


def test_damage_is_said_in_a_line(full_labels, full_classifier, tmp_path):
    broken = tmp_path / "labels"
    shutil.copytree(full_labels, broken)
    next((broken / "shards").iterdir()).write_bytes(b"PAR1 no more")
    with pytest.raises(FlowerrayError, match="flowerray verify"):
        report(ReportSettings(source=str(broken), out=str(tmp_path / "r.html")))
    pq.write_table(pa.table({"other": [1]}), next((broken / "shards").iterdir()))
    with pytest.raises(FlowerrayError, match="a shard of another make"):
        report(ReportSettings(source=str(broken), out=str(tmp_path / "r.html")))
    broken = tmp_path / "classifier"
    shutil.copytree(full_classifier, broken)
    (broken / "evidence.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(FlowerrayError, match=r"evidence\.parquet"):
        report(ReportSettings(source=str(broken), out=str(tmp_path / "r.html")))
    assert not (tmp_path / "r.html").exists()


# In a browser.


@pytest.fixture(scope="module")
def pages(full_labels, full_classifier, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pages")
    files = {}
    for name, source in (("labels", full_labels), ("classifier", full_classifier)):
        files[name] = directory / f"{name}.html"
        report(ReportSettings(source=str(source), out=str(files[name])))
    return files


def exported(page):
    with page.expect_download() as download:
        page.click("#export")
    with open(download.value.path(), encoding="utf-8", newline="") as stream:
        text = stream.read()
    return text, list(csv.DictReader(io.StringIO(text)))


def status(page):
    return page.inner_text("#status")


def test_the_queue_by_keyboard(pages, visit):
    page, queue = visit(pages["labels"]), queue_of(pages["labels"])
    classes = ["rose", "sunflower", "tulip"]
    assert status(page).startswith(f"1 of {len(queue)}: {queue[0]['label']}")
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    assert status(page).startswith("3 of ")
    page.keyboard.press("k")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert status(page).startswith("1 of ")
    page.keyboard.press("3")
    assert status(page).startswith("Decided tulip. 2 of ")
    page.keyboard.press("x")
    page.keyboard.press("0")
    page.keyboard.press("1")
    page.keyboard.press("9")  # of no class
    assert status(page).startswith("Decided rose. 5 of ")
    page.keyboard.press("u")
    assert status(page).startswith("Undone: rose. 4 of ")
    page.keyboard.press("2")
    text, rows = exported(page)
    assert text.startswith("uri,label\n")
    chosen = [classes[2], "none", "none", classes[1]]
    assert rows == [
        {"uri": entry["uri"], "label": label}
        for entry, label in zip(queue[:4], chosen, strict=True)
    ]
    page.reload()
    assert "Export 4 corrections" in page.inner_text("#export")
    page.keyboard.press("?")
    assert page.is_visible("#help") and "undo" in page.inner_text("#help")
    page.uncheck("#keys-on")
    page.click("#help-close")
    page.keyboard.press("j")
    assert status(page).startswith("5 of ")  # the first that isn't decided


def test_a_key_confirms(pages, visit):
    page, queue = visit(pages["labels"]), queue_of(pages["labels"])
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    page.click("#choices [data-key='2']")
    page.keyboard.press("Enter")  # and not the button that was clicked
    page.focus("#choices [data-key='3']")
    page.keyboard.press("Enter")  # this button, by who moves by keys
    page.keyboard.press("Escape")
    page.keyboard.down("Enter")
    page.keyboard.down("Enter")  # held down: once
    page.keyboard.up("Enter")
    chosen = [queue[0]["label"], queue[1]["label"], "sunflower", queue[3]["label"], "tulip"]
    chosen.append(queue[5]["label"])
    assert page.inner_text("#decided") == f"6 of {len(queue)}"
    assert [row["label"] for row in exported(page)[1]] == chosen
    page.focus("#stage")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.keyboard.press("Space")  # the queue is out of sight: the page's own
    assert page.inner_text("#decided").startswith("6 of ")


def test_the_end_of_the_queue_keeps_the_last_decision(pages, visit):
    page, queue = visit(pages["labels"]), queue_of(pages["labels"])
    page.keyboard.press("j")
    for entry in queue[1:]:
        page.keyboard.press("0" if entry["label"] == "rose" else "1")
    none = sum(entry["label"] == "rose" for entry in queue[1:])
    said = f"{len(queue) - 1} of {len(queue)} decided: 0 confirmed, {len(queue) - 1 - none} changed"
    assert f"The end. {said}, {none} none of the classes." in status(page)
    for key in ("3", "Enter", "x", "j"):
        page.keyboard.press(key)
    rows = exported(page)[1]
    assert rows[-1]["label"] == ("none" if queue[-1]["label"] == "rose" else "rose")
    assert page.is_disabled("#next") and len(rows) == len(queue) - 1
    page.click("text=Go to the 1 not decided")
    assert status(page).startswith("1 of ")
    page.keyboard.press("Enter")
    page.keyboard.press("u")
    assert status(page).startswith(f"Undone: {queue[0]['label']}. 1 of ")


def test_what_was_decided_in_another_report_of_the_labels_is_kept(pages, visit):
    page, queue = visit(pages["labels"]), queue_of(pages["labels"])
    page.keyboard.press("1")
    elsewhere = ["/pile/queued-in-another-report.jpg", "tulip"]
    page.evaluate(
        "(entry) => {const key = Object.keys(localStorage)[0];"
        "localStorage[key] = JSON.stringify([...JSON.parse(localStorage[key]), entry])}",
        elsewhere,
    )
    page.reload()
    page.keyboard.press("2")
    page.keyboard.press("u")
    page.keyboard.press("u")
    assert page.is_disabled("#undo")
    page.keyboard.press("3")
    kept = json.loads(page.evaluate("Object.values(localStorage)[0]"))
    assert kept == [elsewhere, [queue[0]["uri"], "tulip"]]
    assert [row["uri"] for row in exported(page)[1]] == [queue[0]["uri"]]


def test_what_people_decide_is_trained_on(sample, fast, visit, tmp_path):
    features, first, labels, better = (
        str(tmp_path / name) for name in ("features", "first", "labels", "better")
    )
    shutil.copytree(fast / "features", features)
    shutil.copytree(fast / "classifier", first)
    settings = LabelSettings(
        images=str(sample.pile), classifier=first, out=labels, min_precision=0.99
    )
    assert label(settings).accepted == 0  # thirty photographs can't show that
    review = pq.read_table(tmp_path / "labels" / "review.parquet").to_pylist()
    for source in (first, labels):
        report(ReportSettings(source=source, out=f"{source}.html"))
    assert "cross-validation" in visit(tmp_path / "first.html").content()
    page = visit(tmp_path / "labels.html")
    page.keyboard.press("2")
    page.keyboard.press("x")
    text, rows = exported(page)
    assert [row["label"] for row in rows] == ["sunflower", "none"]
    assert {row["uri"] for row in rows} <= {row["uri"] for row in review}
    (tmp_path / "corrections.csv").write_text(text)
    train(
        TrainSettings(features=features, out=better, corrections=str(tmp_path / "corrections.csv"))
    )
    learned = {row["uri"]: row["label"] for row in classifier.evidence(better).to_pylist()}
    assert learned[rows[0]["uri"]] == "sunflower" and rows[1]["uri"] not in learned
    assert len(learned) == classifier.evidence(first).num_rows + 1


def test_focus_stays_and_is_seen(pages, visit):
    page = visit(pages["labels"])
    page.focus("#choices [data-key='2']")
    page.keyboard.press("Enter")
    assert status(page).startswith("Decided sunflower. 2 of ")
    assert page.evaluate("document.activeElement.dataset.key") == "2"
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.focus("#strip [aria-current]")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("3: ")
    assert page.locator("#strip [tabindex='0']").count() == 1


def test_filters_and_sorting(pages, visit):
    page, queue = visit(pages["labels"]), queue_of(pages["labels"])
    novel = [entry for entry in queue if entry["reason"] == "novel"]
    assert 0 < len(novel) < len(queue)
    page.select_option("#by-reason", "novel")
    assert f"1 of {len(novel)}: " in status(page)
    label = novel[0]["label"]
    page.select_option("#by-label", label=label)
    both = [entry for entry in novel if entry["label"] == label]
    assert f"1 of {len(both)}: {label}" in status(page)
    page.select_option("#by-reason", "")
    page.select_option("#by-label", "")
    page.select_option("#by-state", "open")
    page.focus("#stage")
    page.keyboard.press("1")
    assert f" of {len(queue) - 1}: " in status(page)
    page.keyboard.press("u")
    assert f" of {len(queue)}: " in status(page)
    page.select_option("#by-state", "done")
    page.focus("#stage")
    assert "No photograph passes the filters." in status(page)
    page.keyboard.press("1")
    page.select_option("#by-state", "")
    page.select_option("#sort", "most")
    page.focus("#stage")
    page.keyboard.press("k")
    for _ in queue:
        page.keyboard.press("k")
    assert f"{100 * queue[-1]['confidence']:.1f}%" in status(page)


def test_hostile_names_are_only_names(labelled, visit, tmp_path):
    out, _ = made(labelled, tmp_path)
    assert HOSTILE[0] not in out.read_text() and "</script><script>w" not in out.read_text()
    page, queue = visit(out), queue_of(out)
    hostile = [e for e in queue if any(e["uri"].endswith(f"/{name}") for name in HOSTILE)]
    assert len(hostile) == len(HOSTILE)
    for entry in queue:
        if entry in hostile:
            assert page.text_content("#facts .uri") == entry["uri"]
            page.keyboard.press("2")
        else:
            page.keyboard.press("j")
    _, rows = exported(page)
    assert rows == [{"uri": entry["uri"], "label": "sunflower"} for entry in hostile]
    assert page.locator("img[src='x']").count() == 0


def test_more_classes_than_digits(labelled, visit, tmp_path):
    more = [f"class {i}, <b>" for i in range(9)]
    (tmp_path / "page").mkdir()
    source = as_accepted(labelled, tmp_path / "labels", more)
    page = visit(made(source, tmp_path / "page")[0])
    page.focus("#choices select")
    page.keyboard.press("ArrowDown")  # which changes a closed list
    assert status(page).startswith("1 of ")
    page.select_option("#choices select", label=more[4])
    page.click("text=Choose")
    assert status(page).startswith(f"Decided {more[4]}. 2 of ")
    page.focus("#stage")
    page.keyboard.press("2")  # the second likeliest
    _, rows = exported(page)
    assert rows[0]["label"] == more[4] and rows[1]["label"] not in more


def test_a_browser_that_keeps_nothing(pages, visit):
    page = visit(pages["labels"])
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() {throw Error()}})")
    page.reload()
    page.keyboard.press("1")
    assert "Export 1 correction" in page.inner_text("#export")
    assert "keeps nothing" in page.inner_text("#kept")
    assert len(exported(page)[1]) == 1


@pytest.mark.parametrize("name", ["labels", "classifier"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_fits_phones_and_both_schemes(pages, visit, name, scheme, width):
    page = visit(pages[name], viewport={"width": width, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_filter_leaves_the_keys_to_the_queue(pages, visit):
    page, queue = visit(pages["labels"]), queue_of(pages["labels"])
    novel = [entry for entry in queue if entry["reason"] == "novel"]
    page.focus("#by-reason")
    page.select_option("#by-reason", "novel")
    page.keyboard.press("2")  # digits decide
    assert status(page).startswith(f"Decided sunflower. 2 of {len(novel)}: ")
    assert page.evaluate("document.activeElement.id") == "by-reason"
    page.keyboard.press("u")  # the list's own: it looks for what begins so
    assert page.inner_text("#decided").startswith("1 of ")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    assert page.inner_text("#decided").startswith("0 of ")
    page.dispatch_event("#sort", "pointerdown")
    page.select_option("#sort", "name")  # by a pointer: back to the photograph
    page.keyboard.press("Enter")
    assert page.inner_text("#decided").startswith("1 of ")


def test_the_slider_says_what_is_accepted(pages, visit):
    page, about = visit(pages["classifier"]), accepting_of(pages["classifier"])
    steps = about["steps"]

    def says(step):
        asked = f"At {100 * step['precision']:g}%: accepts {step['accepted']} of"
        left = f"leaves {about['photographs'] - step['accepted']};"
        said = page.inner_text(".said")
        return asked in said and left in said

    assert says(steps[17]) and steps[17]["precision"] == 0.97
    page.focus("#precision")
    page.keyboard.press("Home")
    assert says(steps[0]) and steps[0]["wrong"]
    page.click("#errors-of summary")
    assert page.locator("#errors-rows tr").count() == steps[0]["wrong"]
    with page.expect_download() as download:
        page.click("#errors-save")
    with open(download.value.path(), encoding="utf-8", newline="") as stream:
        saved = [row["uri"] for row in csv.DictReader(stream)]
    assert saved == [about["errors"][i]["uri"] for i in steps[0]["errors"]]
    page.focus("#precision")
    page.keyboard.press("End")
    assert says(steps[-1]) and "no class passes the test" in page.inner_text(".said")
    assert page.is_hidden("#errors-of")


def test_on_a_phone_the_choices_are_in_sight(labelled, pages, visit, tmp_path):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    inside = (
        "[...document.querySelectorAll('#choices button')].every((button) => {"
        "const {left, right, top, bottom} = button.getBoundingClientRect();"
        "const seen = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);"
        "return bottom <= innerHeight && button.contains(seen)})"
    )
    for file in (pages["labels"], made(labelled, tmp_path)[0]):
        page = visit(file, **phone)
        assert page.evaluate(inside)
        page.click(".sections a[href='#review']")
        assert page.evaluate(inside) and page.is_visible("#stage img")
        picture, choices = (page.locator(at).bounding_box() for at in ("#stage img", "#choices"))
        assert picture["y"] + picture["height"] <= choices["y"]
        assert page.locator("details.sheet[open]").count() == 0
    wide = visit(pages["labels"])
    assert wide.locator("details.sheet[open]").count() == wide.locator("details.sheet").count() > 0
    assert not wide.locator(".made > summary").is_visible()


def test_the_section_bar_stays_and_leads_to_every_part(pages, visit):
    for name in ("labels", "classifier"):
        for width in (390, 1400):
            page = visit(pages[name], viewport={"width": width, "height": 844})
            links = [link.get_attribute("href") for link in page.locator(".sections a").all()]
            sections = [
                f"#{part.get_attribute('id')}" for part in page.locator("main section").all()
            ]
            assert links == sections
            page.click(f".sections a[href='{links[-2]}']")
            bar = page.locator(".sections").bounding_box()
            assert bar["y"] == 0 and bar["width"] == width
            heading = page.locator(f"{links[-2]} h2").bounding_box()
            assert heading["y"] >= bar["height"]


def test_the_queue_by_touch_on_a_phone(pages, visit):
    page = visit(
        pages["labels"], viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    small = page.evaluate(
        "[...document.querySelectorAll('#review-app button, #review-app select')]"
        ".filter((e) => e.offsetParent && e.getBoundingClientRect().height < 44).length"
    )
    assert small == 0
    page.tap("#choices [data-key='0']")
    page.tap("#next")
    assert status(page).startswith("3 of ")
    page.tap("#undo")
    assert status(page).startswith("Undone: none of the classes. 1 of ")


def test_charts_and_pictures_have_names(pages, visit):
    for name in ("labels", "classifier"):
        page = visit(pages[name])
        for chart in page.locator("svg.chart").all():
            titles = chart.get_attribute("aria-labelledby").split()
            for title in titles:
                assert page.evaluate("(id) => document.getElementById(id).textContent", title)
        assert page.locator("img:not([alt])").count() == 0
        twice = page.evaluate(
            "(() => {const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);"
            "return ids.filter((id, i) => ids.indexOf(id) !== i)})()"
        )
        assert twice == []


@pytest.mark.parametrize("name", ["labels", "classifier"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_no_barriers_that_axe_calls_serious(pages, visit, name, scheme, width):
    page = visit(pages[name], viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert barriers(page) == []
