"""Settings from YAML files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from flowerray.cli import main
from flowerray.config import read
from flowerray.parser import JOBS, parser
from flowerray.settings import CommandSettings


@pytest.fixture
def job(tmp_path):
    """Write a file of settings; returns its path."""

    def write(text):
        (tmp_path / "job.yaml").write_text(text)
        return str(tmp_path / "job.yaml")

    return write


def refusal(capsys, *words):
    capsys.readouterr()
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("flowerray: ")
    return error.removeprefix("flowerray: ").rstrip()


@pytest.mark.parametrize("command", JOBS)
def test_the_printed_file_has_every_option_and_changes_nothing(command, capsys, job):
    assert main(["config", command]) == 0
    path = job(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    flags = set(re.findall(r"^  (?:-h, )?--([a-z-]+)", capsys.readouterr().out, re.M))
    flags -= {"help", "config"}
    assert flags and flags <= set(yaml.safe_load(Path(path).read_text()))
    options = read(path, command, JOBS[command].settings, CommandSettings)
    example = JOBS[command].examples[0].split()[1:]
    plain = parser().parse_args(example)
    assert parser(command, options).parse_args(example) == plain


def test_a_job_runs_from_its_file_alone_and_the_command_line_wins(job, capsys, tmp_path):
    path = job(f"directory: {tmp_path / 'drawn'}\nper-class: 2\nseed: 1\njson: true\n")
    assert main(["sample", "--config", path]) == 0
    assert json.loads(capsys.readouterr().out)["photographs"] == 12
    assert main(["sample", str(tmp_path / "other"), f"--config={path}", "--per-class", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["photographs"] == 18
    assert main(["sample", str(tmp_path / "third"), "--config", path, "--no-json"]) == 0
    assert capsys.readouterr().out.startswith("12 flowers")


def test_dashes_and_underscores_are_one(job):
    for key in ("per-class", "per_class"):
        path = job(f"{key}: 7")
        assert read(path, "sample", JOBS["sample"].settings) == {"per_class": 7}


def test_what_the_file_lacks_is_asked_for(job, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["label", "--config", job("images: pile\nout: null\n")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "the following arguments are required: --classifier, --out" in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min-confidense: 0.9", "min-confidense is no option of `flowerray label`; did you mean "),
        ("zzz: 1", "zzz is no option of `flowerray label`; `flowerray config label` lists them"),
        ("top-k: three", "top-k is 'three'; it must be a whole number"),
        ("top_k: true", "top_k is True; it must be a whole number"),
        ("top-k: 0", "top-k is 0; it must be at least 1"),
        ("append: yes please", "append is 'yes please'; it must be true or false"),
        ("out: 2026-13-01", "not YAML: month must be in 1..12"),
        ("out: 2024", "out is 2024; it must be text (in quotes)"),
        ("device: null", "device is None; it must be text"),
        ("format: xml", "format is 'xml'; choose one of parquet, csv, jsonl"),
        ("top-k: 1\ntop_k: 2", "top_k is there twice"),
    ],
)
def test_a_wrong_line_is_named_with_its_mend(text, words, job, capsys):
    path = job(text)
    error = refusal(capsys, "label", "--config", path)
    assert error.startswith(f"{path}: {words}")


def test_a_file_that_is_no_yaml_is_refused(job, capsys, tmp_path):
    error = refusal(capsys, "label", "--config", job("out: labels\n  top-k: 1\n"))
    assert "job.yaml, line 2: not YAML: " in error
    assert "must hold a line such as" in refusal(capsys, "label", "--config", job("- out\n"))
    missing = str(tmp_path / "none.yaml")
    assert "`flowerray config label > FILE`" in refusal(capsys, "label", "--config", missing)
    object = job("out: !!python/object/apply:os.system ['touch pwned']\n")
    assert "not YAML" in refusal(capsys, "label", "--config", object)


def test_job_scripts_take_a_file(job, tmp_path):
    path = job("images: pile\nseeds: 3\n")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "jobs" / "extract_features.py", "--config", path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"flowerray: {path}: seeds is no option of `flowerray extract`; did you mean seed?\n"
    )
