"""What people are told while a job runs: on a terminal, in a notebook, in a log."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
import threading
import types

import pytest
from conftest import REPOSITORY

from flowerray import progress
from flowerray.commands import shown
from flowerray.commands.train import TrainSummary
from flowerray.commands.verify import Verdict
from flowerray.progress import MOST_TOLD, Progress, promptly, say, some_names, some_of
from flowerray.settings import ExtractSettings
from flowerray.sources import labelled, listing
from flowerray.trust import scores


@pytest.fixture
def at_once(monkeypatch):
    """Every moment is long enough to be told of."""
    for name in ("SECONDS_TO_A_WORD", "SECONDS_BETWEEN_MOVES", "SECONDS_BETWEEN_LINES"):
        monkeypatch.setattr(progress, name, 0.0)


def test_elsewhere_there_are_plain_lines_from_the_first_second(capsys, at_once):
    told = Progress("label", 40)
    assert capsys.readouterr().err == "label: 40 photographs to do\n"
    told.ready(0)
    told.add(10, 2)
    line = r"label: 10 of 40 photographs \(25%\), [\d,.]+/s, \d+:\d\d left, 2 rejected\n"
    assert re.fullmatch(line, capsys.readouterr().err)
    told.add(30)
    told.finish()
    assert capsys.readouterr().err.splitlines()[-1].startswith("label: 40 of 40 photographs (100%)")


def test_lines_are_seconds_apart(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 3600.0)
    told = Progress("label", 1000)
    for _ in range(1000):
        told.add(1)
    assert capsys.readouterr().err == "label: 1,000 photographs to do\n"


def test_what_is_done_already_is_told(capsys):
    Progress("label", 40, 32).finish()
    said = capsys.readouterr().err
    assert said == "label: 32 of 40 are done already, going on from there\n"


TERMINAL = """
from flowerray import progress
from flowerray.progress import Progress, say
progress.SECONDS_BETWEEN_MOVES = 0.0
told = Progress("label", 40)
told.ready(0)
told._next = 0
told.add(10)
say("a word in between")
told.add(30)
told.finish()
"""


def test_on_a_terminal_one_line_moves_and_no_other_is_mixed_with_it():
    """What is left to see: each line is what stands after the last carriage return in it."""
    ours, theirs = pty.openpty()
    script = [sys.executable, "-c", TERMINAL]
    done = subprocess.Popen(script, stderr=theirs, cwd=REPOSITORY)
    assert done.wait(60) == 0
    os.close(theirs)
    told = b""
    while True:
        try:
            told += os.read(ours, 4096)
        except OSError:  # all is read
            break
    text = told.decode().replace("\r\n", "\n")
    assert "\r\x1b[Klabel: 10 of 40 photographs" in text
    left = [line.rpartition("\r\x1b[K")[2] for line in text.strip().split("\n")]
    assert left[0] == "a word in between"
    assert left[1].startswith("label: 40 of 40 photographs (100%)") and len(left) == 2


@pytest.fixture
def notebook(monkeypatch):
    """A kernel's shell, as IPython gives it: tqdm asks the same for how to draw a bar."""
    shell = type("ZMQInteractiveShell", (), {"config": {}})()
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shell


def test_in_a_notebook_there_is_a_bar(notebook, capsys, at_once):
    told = Progress("label", 40, 8)
    told.ready(0)
    told.add(12, 3)
    assert "| 20/40 [" in capsys.readouterr().err
    say("a word in between")
    assert capsys.readouterr().err.split("\r")[2].startswith("a word in between\n")
    told.add(20)
    told.finish()
    say("a word afterwards")
    said, _, word = capsys.readouterr().err.strip().rpartition("\n")
    assert word == "a word afterwards"
    last = said.split("\r")[-1]
    assert last.startswith("label: 100%|") and "| 40/40 [" in last
    assert " photographs/s" in last and "3 rejected" in last


def test_another_shell_of_ipython_is_no_notebook(monkeypatch, capsys):
    shell = type("TerminalInteractiveShell", (), {})()
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    Progress("label", 40)
    assert capsys.readouterr().err == "label: 40 photographs to do\n"


@pytest.fixture
def pile(tmp_path):
    """Two classes, as folders; a list, a table and a pattern of the same."""
    for name in ("rose", "tulip"):
        (tmp_path / "pile" / name).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "pile" / name / f"{number}.jpg").write_bytes(b"x")
    files = sorted(map(str, (tmp_path / "pile").rglob("*.jpg")))
    (tmp_path / "list.txt").write_text("\n".join(files))
    (tmp_path / "table.csv").write_text("\n".join(["uri", *files]))
    return tmp_path


@pytest.mark.parametrize("source", ["pile", "list.txt", "table.csv", "pile/**/*.jpg"])
def test_a_listing_tells_how_many_there_are_so_far(source, pile, capsys, at_once):
    assert sum(map(len, listing.photographs_to_label(str(pile / source)))) == 12
    told = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"reading the list: \d+ so far, [\d,.]+/s", line) for line in told)
    assert "reading the list: 12 so far" in told[-1]


def test_a_directory_is_told_of_before_it_is_read_to_its_end(pile, capsys, at_once):
    next(listing.photographs_to_label(str(pile / "pile" / "rose")))
    assert "reading the list: 1 so far" in capsys.readouterr().err


def test_a_listing_of_classes_counts_on(pile, capsys, at_once):
    settings = ExtractSettings(images=str(pile / "pile"), out="f")
    assert sum(map(len, labelled.photographs_to_extract(settings))) == 12
    assert "reading the list: 12 so far" in capsys.readouterr().err.splitlines()[-1]


def test_a_listing_that_takes_no_time_says_nothing(pile, capsys):
    list(listing.photographs_to_label(str(pile / "pile")))
    assert capsys.readouterr().err == ""


def test_a_command_that_says_nothing_says_that_it_begins(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_TO_A_WORD", 0.01)
    spoken = threading.Event()
    monkeypatch.setattr(progress, "say", lambda message: (say(message), spoken.set()))
    with promptly("label"):
        assert spoken.wait(60)
    assert capsys.readouterr().err == "label: starting\n"


def test_a_command_that_speaks_for_itself_is_left_to_it(monkeypatch, capsys):
    timers = []

    class AtTheEnd(threading.Timer):
        """One whose time comes when the block is over."""

        def start(self):
            timers.append(self)

    monkeypatch.setattr(progress.threading, "Timer", AtTheEnd)
    with promptly("label"):
        say("weights of vgg16: trying Keras' download")
        (timer,) = timers
        timer.function()
    assert capsys.readouterr().err == "weights of vgg16: trying Keras' download\n"


@pytest.mark.slow
def test_the_first_word_is_of_ray(command, sample, tmp_path):
    done = command("extract", sample.labelled, "--out", tmp_path / "f", "--base", "thumbnail")
    told = [line for line in done.stderr.splitlines() if line != "extract: starting"]
    assert told[:2] == ["starting Ray on this machine", "extract: 30 photographs to do"]


def test_no_list_is_longer_than_twenty():
    few = [str(number) for number in range(MOST_TOLD)]
    assert some_of(few, "file") == few and some_names(few) == ", ".join(few)
    many = [*few, "one", "two"]
    assert some_of(many, "file") == [*few, "and 2 more: file"]
    assert some_names(many) == ", ".join(few) + " and 2 more"


def test_the_errors_of_a_training_are_twenty_and_a_file():
    mistake = {"uri": "a.jpg", "original_label": "rose", "prediction": "tulip", "confidence": 0.5}
    found = scores.score(*([0, 1],) * 2, ["rose", "tulip"])
    done = TrainSummary("/c", ["rose", "tulip"], 9, found, [mistake] * 300, 0.1)
    lines = shown.train(done).splitlines()
    assert sum(line.startswith("a.jpg: ") for line in lines) == MOST_TOLD
    assert "and 280 more: /c/classifier.json" in lines


def test_scores_of_many_classes_are_those_with_the_most_errors_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = [f"class{number:03d}" for number in range(100)]
    truth = [number for number in range(100) for _ in range(number + 1)]
    wrong = [(number + 1) % 100 for number in truth]
    done = {**scores.score(truth, wrong, names), "without_label": 0, "without_truth": 0}
    lines = shown.evaluate(done).splitlines()
    assert len(lines) < 60
    table = lines[4 : 4 + MOST_TOLD]
    assert [line.split()[0] for line in table] == names[: -MOST_TOLD - 1 : -1]
    (file,) = tmp_path.iterdir()
    assert lines[4 + MOST_TOLD] == f"and 80 more: {file}"
    assert [*lines[7 + MOST_TOLD].split()] == ["class099", "class000", "100"]
    assert json.loads(file.read_text()) == done


def test_files_that_do_not_belong_are_twenty_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    foreign = [f"shards/{number:03d}.parquet" for number in range(50)]
    text = shown.verify(Verdict("/labels", 9, 9, foreign=foreign))
    assert text.count("of another run: ") == MOST_TOLD
    (file,) = tmp_path.iterdir()
    assert f"and 30 more: {file}" in text
    assert json.loads(file.read_text())["foreign"] == foreign


def test_findings_are_twenty_of_all_checks_and_a_file(command, tmp_path):
    for name in ("rose", "tulip"):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "photographs" / name / f"{number}.jpg").write_bytes(b"no photograph")
    from PIL import Image

    for name in ("rose", "tulip"):
        for number, side in enumerate((300, 300, 301)):
            image = Image.radial_gradient("L").resize((side, side))
            image.save(tmp_path / "photographs" / name / f"good{number}.png")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = command("check", tmp_path / "photographs", TMPDIR=str(temporary))
    told = re.findall(r"^  (?!and )", done.stdout, re.M)
    assert len(told) == MOST_TOLD
    checks = {line.partition(":")[0] for line in done.stdout.splitlines() if ": " in line}
    assert {"unreadable", "exact_duplicate", "two_labels"} <= checks
    (file,) = temporary.glob("flowerray-findings-*.csv")
    assert done.stdout.splitlines()[-1] == f"all findings: {file}"
    assert len(list(csv.DictReader(file.open()))) > 60
    asked = command("check", tmp_path / "photographs", "--out", tmp_path / "all.csv")
    assert asked.stdout.splitlines()[-1] == f"all findings: {tmp_path / 'all.csv'}"
    assert (tmp_path / "all.csv").read_text() == file.read_text()
