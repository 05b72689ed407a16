"""Bases side by side: what is told of them, what goes on, what fails and how it looks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import barriers
from onnx_models import laid_out, vision_transformer

import flowerray as fr
from flowerray.cli import main
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.settings import CompareSettings
from flowerray.trust.candidates import Candidate, advice
from flowerray.trust.paired import Paired, error_interval, paired

NAMES = ('<img src=x onerror="window.broken=1">', "tulip & co", "ünï花")


@pytest.fixture(scope="module")
def photographs(sample, tmp_path_factory):
    """The labelled sample with class names that a page which is not careful runs."""
    directory = tmp_path_factory.mktemp("odd") / "photographs"
    for name, folder in zip(NAMES, sorted(sample.labelled.iterdir()), strict=True):
        shutil.copytree(folder, directory / name)
    return directory


@pytest.fixture(scope="module")
def compared(photographs, local_ray, tmp_path_factory):
    """A comparison of a base that works, one whose weights are at random, and two recipes."""
    out = tmp_path_factory.mktemp("compared") / "out"
    done = fr.compare(
        photographs,
        bases="thumbnail,mobilenetv3small",
        recipes="mlp,logistic",
        weights="random",
        out=out,
        number=1000,
        price=3.6,
    )
    shutil.copy(done.page, out.parent)  # other tests compare anew
    return done


def test_a_row_is_what_the_evidence_of_its_classifier_says(compared):
    rows = [(one.base, one.recipe) for one in compared.candidates]
    bases, recipes = ("thumbnail", "mobilenetv3small"), ("mlp", "logistic")
    assert rows == [(base, recipe) for base in bases for recipe in recipes]
    for one in compared.candidates:
        directory = f"{compared.out}/{one.base}/{one.recipe}/classifier"
        evidence = classifier.evidence(directory)
        wrong = np.asarray(evidence["label"]) != np.asarray(evidence["prediction"])
        assert (one.errors, one.photographs) == (wrong.sum(), len(wrong))
        assert {"train", "valid"} == {*evidence["split"].to_pylist()}
        assert one.error_low <= one.error <= one.error_high
        about = classifier.load(directory).about
        assert one.calibration_error == about["calibration"]["ece_after"]
        assert 0 <= one.accepted <= 1
        features = read_output(f"{compared.out}/{one.base}/features", "features")
        timing = features.run["timing"]
        assert one.timed == timing["photographs"] == 30
        assert one.rate == timing["photographs"] / timing["seconds"]
        assert one.hours == pytest.approx(1000 / one.rate / 3600)
        assert one.cost == pytest.approx(one.hours * 3.6)
        table = shards.read_table(features, ["features"])
        assert one.feature_bytes == table["features"].type.list_size * 2
    first, other = compared.candidates[0], compared.candidates[2]
    assert first.beside is None and other.beside is not None
    assert other.beside.photographs <= min(first.photographs, other.photographs)


def test_the_recipes_of_a_base_share_its_extraction(compared):
    mine = [one for one in compared.candidates if one.base == "thumbnail"]
    assert len({(one.rate, one.feature_bytes, one.hours) for one in mine}) == 1
    assert {entry.name for entry in os.scandir(f"{compared.out}/thumbnail")} == {
        *("features", "mlp", "logistic")
    }


def test_the_same_command_computes_nothing_again_and_says_the_same(compared, photographs, capsys):
    before = {
        entry: os.stat(entry).st_mtime_ns
        for root, _, names in os.walk(compared.out)
        for entry in (os.path.join(root, name) for name in names)
        if not entry.endswith(".html")
    }
    words = ["compare", str(photographs), "--bases", "thumbnail,mobilenetv3small", "--json"]
    words += ["--recipes", "mlp,logistic", "--weights", "random", "--out", compared.out]
    assert main([*words, "--number", "1000", "--price", "3.6"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["errors"] for one in said["candidates"]] == [
        one.errors for one in compared.candidates
    ]
    assert said["candidates"][2]["beside"] == vars(compared.candidates[2].beside)
    assert (said["advice"], said["classes"]) == (compared.advice, sorted(NAMES))
    assert [one["rate"] for one in said["candidates"]] == [one.rate for one in compared.candidates]
    assert {entry: os.stat(entry).st_mtime_ns for entry in before} == before


def test_a_table_on_stdout_has_a_line_for_each_and_one_of_advice(compared, photographs, capsys):
    words = ["compare", str(photographs), "--bases", "thumbnail", "--out", compared.out]
    assert main([*words, "--weights", "random"]) == 0
    head, row, *rest = capsys.readouterr().out.splitlines()
    one = compared.candidates[0]
    assert head.split()[:3] == ["base", "errors", "share"] and "cost" not in head
    assert row.split()[:2] == ["thumbnail", f"{one.errors}/{one.photographs}"]
    assert len(head) == len(row) <= 100
    assert [line.partition(": ")[0] for line in rest[1:]] == ["advice", "page"]
    assert rest[1] == "advice: thumbnail mlp: there is nothing to compare it with"


def test_a_base_that_fails_costs_its_row(photographs, local_ray, tmp_path, capsys):
    junk = tmp_path / "weights.h5"
    junk.write_bytes(b"no weights")
    words = ["compare", str(photographs), "--bases", "mobilenetv3small,thumbnail"]
    assert main([*words, "--weights", str(junk), "--out", str(tmp_path / "out"), "--json"]) == 0
    streams = capsys.readouterr()
    done = json.loads(streams.out)
    (failed,), (worked,) = done["failed"], done["candidates"]
    assert failed["name"] == "mobilenetv3small" and str(junk) in failed["reason"]
    assert worked["base"] == "thumbnail" and worked["photographs"] and worked["beside"] is None
    assert f"compare: mobilenetv3small: {failed['reason']}" in streams.err.splitlines()
    html = (tmp_path / "out" / "compare.html").read_text()
    assert "What could not be tried" in html and "weights.h5" in html


def test_bases_in_files_are_called_as_these_are(photographs, local_ray, tmp_path):
    vit = laid_out(tmp_path / "vit", vision_transformer())
    bases, out = f"thumbnail,{vit}", tmp_path / "out"
    done = fr.compare(photographs, bases=bases, out=out)
    assert [one.base for one in done.candidates] == ["thumbnail", "vit"] and not done.failed
    assert (out / "vit" / "mlp" / "classifier" / "classifier.json").exists()
    other = laid_out(tmp_path / "other" / "vit", vision_transformer(class_token=False))
    with pytest.raises(UsageError, match="two bases are called vit"):
        fr.compare(photographs, bases=f"{bases},{other}", out=out)
    with pytest.raises(FlowerrayError, match="no such base"):
        fr.compare(photographs, bases=f"thumbnail,{tmp_path}/none.onnx", out=out)


def test_a_comparison_in_which_nothing_worked_has_failed(photographs, local_ray, tmp_path, capsys):
    words = ["compare", str(photographs), "--bases", "mobilenetv3small,vgg16"]
    junk = tmp_path / "weights.h5"
    junk.write_bytes(b"no weights")
    assert main([*words, "--weights", str(junk), "--out", str(tmp_path / "out")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("flowerray: ") and str(junk) in last
    assert not (tmp_path / "out" / "compare.html").exists()


def test_what_is_no_fault_of_a_base_is_told_once(tmp_path, local_ray):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlowerrayError) as told:
        fr.compare(tmp_path / "empty", bases="thumbnail,vgg16", out=tmp_path / "out")
    assert str(told.value).count(str(tmp_path / "empty")) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bases": "vgg166"}, "did you mean vgg16?"),
        ({"bases": " ,"}, "--bases names none"),
        ({"bases": "vgg16", "recipes": "mlp,finetune"}, "choose of mlp, logistic"),
        ({"bases": "vgg16", "recipes": ""}, "choose of mlp, logistic"),
        ({"bases": "vgg16", "price": -1}, "--price is -1"),
    ],
)
def test_what_cannot_be_asked_is_a_line(options, told, tmp_path):
    with pytest.raises(UsageError, match=told.replace("?", r"\?")):
        fr.compare(tmp_path, out=tmp_path.parent / "out", **options)


def test_each_name_counts_once():
    asked = CompareSettings(images="i", out="o", bases="vgg16, thumbnail,vgg16,", recipes="mlp")
    assert asked.each_base == ["vgg16", "thumbnail"]


def test_a_page_of_ones_own_is_not_written_over(photographs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compare.html").write_text("mine")
    with pytest.raises(FlowerrayError, match="no report of flowerray's"):
        fr.compare(photographs, bases="thumbnail", out=tmp_path / "out")


def test_after_a_kill_the_same_command_goes_on(photographs, tmp_path):
    out = tmp_path / "out"
    words = ["compare", photographs, "--bases", "thumbnail,mobilenetv3small", "--out", out]
    words = [sys.executable, "-m", "flowerray.cli", *map(str, words), "--weights", "random"]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    first = out / "thumbnail" / "mlp" / "classifier" / "classifier.json"
    while process.poll() is None and not first.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    there = {path: path.stat().st_mtime_ns for path in (out / "thumbnail").rglob("*.parquet")}
    assert len(there) >= 3 and not (out / "compare.html").exists()
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in there} == there
    rows = json.loads(done.stdout)["candidates"]
    assert [(one["base"], one["timed"]) for one in rows] == [
        ("thumbnail", 30),
        ("mobilenetv3small", 30),
    ]
    assert all(one["rate"] for one in rows) and (out / "compare.html").exists()


# The statistics, against numbers of others.


@pytest.mark.parametrize(
    ("errors", "photographs", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(errors, photographs, low, high):
    assert error_interval(errors, photographs) == pytest.approx((low, high), abs=5e-5)


def rights(both, first, second, neither):
    """Which photographs two classifiers get right: so many both, only the first, ..."""
    counts = (both, first, second, neither)
    return (
        np.repeat([True, True, False, False], counts),
        np.repeat([True, False, True, False], counts),
    )


def test_the_pair_is_mcnemars_and_agresti_and_mins():
    by = paired(*rights(20, 10, 2, 5))
    assert (by.photographs, by.first_alone, by.second_alone) == (37, 2, 10)
    assert by.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # of twelve coins at most two
    assert by.difference == pytest.approx(8 / 37) and not by.within_noise
    # Approval of a prime minister, Agresti, "Categorical Data Analysis": 0.04 with Wald's interval
    # from 0.0213 to 0.0587; of so many the added half persons change the fourth digit.
    by = paired(*rights(794, 150, 86, 570))
    assert by.difference == pytest.approx(0.04)
    assert (by.low, by.high) == pytest.approx((0.0213, 0.0587), abs=2e-4)
    assert by.p == pytest.approx(3.7e-5, abs=1e-6)


def test_the_same_answers_are_within_noise_however_few():
    by = paired(*rights(3, 0, 0, 1))
    assert by.p == 1 and by.difference == 0 and by.within_noise
    assert by.low < 0 < by.high
    turned = paired(*rights(20, 2, 10, 5)), paired(*rights(20, 10, 2, 5))
    assert turned[0].p == turned[1].p and turned[0].difference == -turned[1].difference
    assert (turned[0].low, turned[0].high) == pytest.approx((-turned[1].high, -turned[1].low))


def candidate(base, rate, beside=None, recipe="mlp"):
    extracted = (base, "float32", rate, 600, 1024, None, None)
    return Candidate(*extracted, recipe, 600, 60, 0.1, 0.08, 0.13, 0.02, 0.5, beside)


FIRST = candidate("vgg16", 30.0)
SAME = Paired(600, 20, 24, 0.652, 0.007, -0.015, 0.028)
BETTER = Paired(600, 40, 10, 0.00002, -0.05, -0.075, -0.027)
BARELY = Paired(600, 30, 15, 0.036, -0.025, -0.05, -0.001)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([], "vgg16 mlp: there is nothing to compare it with"),
        (
            [candidate("resnet50", 120.0, SAME)],
            "resnet50 mlp: the same errors as vgg16 mlp within noise (-1.5 to +2.8 points, "
            "p 0.652) at 4.0 times the speed",
        ),
        ([candidate("a", 33.0, SAME)], "vgg16 mlp: none errs less, and none is faster"),
        ([candidate("a", None, SAME)], "vgg16 mlp: none errs less, and none is faster"),
        (
            [candidate("a", 15.0, BETTER)],
            "a mlp: 5.0 points fewer errors than vgg16 mlp (p below 0.001) at 0.5 times the speed",
        ),
        ([candidate("vgg16", 30.0, BETTER, "logistic")], "vgg16 mlp (p below 0.001)"),
        ([candidate("a", 30.0, BARELY)], "a mlp: 2.5 points fewer errors"),
        # Of two tests one comes out so by chance too often, and it is not the same either.
        ([candidate("a", 90.0, BARELY), candidate("b", 30.0, SAME)], "vgg16 mlp: none errs less"),
        ([candidate("a", 9.0, BETTER), candidate("b", 90.0, SAME)], "; b mlp: the same errors as"),
    ],
)
def test_advice_says_no_more_than_the_numbers(others, told):
    assert told in advice([FIRST, *others])


# In a browser.


def page_of(compared):
    return Path(compared.out).parent / "compare.html"


def test_the_page_runs_no_name_and_holds_all_it_shows(compared, visit):
    page = visit(page_of(compared))
    assert page.locator("header bdi").all_inner_texts() == ["photographs", *sorted(NAMES)]
    assert page.locator("#table tbody tr").count() == 4
    assert page.locator("#errors svg.chart text", has_text="thumbnail mlp").count() == 1
    assert compared.advice in page.locator(".said").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_has_no_barriers_and_fits(compared, visit, width, scheme):
    size = {"width": width, "height": 740}
    page = visit(page_of(compared), viewport=size, color_scheme=scheme)
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
