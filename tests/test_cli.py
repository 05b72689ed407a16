import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from flowerray.cli import main
from flowerray.parser import COMMANDS, parser
from flowerray.settings import (
    CheckSettings,
    LabelSettings,
    ReportSettings,
    TrainSettings,
    flag_of,
    grouped_options,
)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_has_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "examples:" in capsys.readouterr().out
    for example in COMMANDS[command].examples:
        words = [word.strip("'") for word in example.partition(" > ")[0].split()]
        assert words[:2] == ["flowerray", command]
        parser().parse_args(words[1:])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_what_must_be_given(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\n")
    groups = grouped_options(COMMANDS[command].settings)
    needed = [field for name in ("positional", "required") for field in groups.get(name, ())]
    flags = [flag_of(field) for field in needed if not field.metadata["positional"]]
    assert len(usage) <= 100 and [word for word in usage.split() if word[:2] == "--"] == flags
    words = usage.removeprefix(f"usage: flowerray {command} ")
    assert re.fullmatch(r"([A-Z|]+ (\.\.\. )?)*(--[a-z-]+ [A-Z]+ )*\[options\]", words)
    first = re.findall(r"^  (\S+)", rest, re.M)[: len(needed)]
    assert first == [
        (field.metadata["metavar"] or field.name.upper())
        if field.metadata["positional"]
        else flag_of(field)
        for field in needed
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("lable pile", "invalid choice: 'lable'...; did you mean label?"),
        ("config acept", "invalid choice: 'acept'...; did you mean accept?"),
        (
            "label pile --classifier c --out l --min-precison 0.9",
            "unrecognized arguments: --min-precison; did you mean --min-precision?",
        ),
        ("label pile --clasifier=c --out l", "--clasifier=c; did you mean --classifier?"),
        ("train f --out c --recipe logistik", "'logistik'...; did you mean logistic?"),
        ("extract p --out f --no-overwrit", "--no-overwrit; did you mean --no-overwrite?"),
        ("label pile --classifier c --out l --zzz", "unrecognized arguments: --zzz"),
        ("extract p --out f --base vgg166", "flowerray bases` lists them; did you mean vgg16?"),
        ("check p --only unreadable,leekage", "extreme_aspect; did you mean leakage?"),
    ],
)
def test_a_mistyped_word_is_told_with_what_was_meant(words, told, capsys):
    try:
        code = main(words.split())
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and re.search(".*".join(map(re.escape, told.split("..."))) + "$", said[-1])
    assert said[0].startswith(("usage: flowerray ", "flowerray: ", "extract: starting"))


def test_what_looks_like_an_option_and_is_a_value_stays_one(capsys):
    assert main(["extract", "p", "--out", "f", "--seed", "-1"]) == 2
    assert "--seed is -1; it must be at least 0" in capsys.readouterr().err
    (photograph,) = (
        parser().parse_args(["predict", "--classifier", "c", "--", "-a.jpg"]).photographs
    )
    assert photograph == "-a.jpg"


def test_a_file_of_an_output_stands_for_its_directory(tmp_path, monkeypatch):
    for name in ("labels/shards/0.parquet", "labels/run.json", "labels/review.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "classifier.json").write_text("{}")
    (tmp_path / "classifier" / "head.keras").write_bytes(b"")
    (tmp_path / "table.csv").write_text("uri\n")
    monkeypatch.chdir(tmp_path)
    for file in ("run.json", "review.parquet", "shards/0.parquet"):
        assert ReportSettings(source=f"labels/{file}").source == "labels"
    for file in ("head.keras", "classifier.json"):
        settings = LabelSettings(images="p", classifier=tmp_path / "classifier" / file, out="l")
        assert settings.classifier == str(tmp_path / "classifier")
    assert TrainSettings(features="s3://bucket/f/run.json", out="c").features == "s3://bucket/f"
    # A table may be one of photographs, and a file that lies elsewhere stands for nothing.
    assert CheckSettings(source="labels/run.json").source == "labels"
    assert CheckSettings(source="labels/review.parquet").source == "labels/review.parquet"
    assert ReportSettings(source="table.csv").source == "table.csv"
    monkeypatch.chdir(tmp_path / "labels" / "shards")
    assert ReportSettings(source="0.parquet").source == ".."
    assert ReportSettings(source="../run.json").source == ".."
    monkeypatch.chdir(tmp_path / "labels")
    for file in ("run.json", "review.parquet", "shards/0.parquet"):
        assert ReportSettings(source=file).source == "."


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from flowerray.cli import main\n"
        "try: main(['label', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'tensorflow', 'keras', 'numpy', 'pyarrow', 'PIL', 'sklearn'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_exit_codes_and_one_line_errors(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["label"])
    assert ended.value.code == 2
    capsys.readouterr()
    usage = ["extract", str(tmp_path), "--out", str(tmp_path / "f"), "--batch-size", "0"]
    assert main(usage) == 2
    assert capsys.readouterr().err == "flowerray: --batch-size is 0; it must be at least 1\n"
    assert main(["train", str(tmp_path / "none"), "--out", str(tmp_path / "c")]) == 1
    error = capsys.readouterr().err.removeprefix("train: starting\n")  # on a busy machine
    assert error.count("\n") == 1 and "flowerray extract" in error
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "{classes}", "--out", "c"], 1, "no features in {classes}: give the --out of"),
        (["evaluate", "{file}", "--truth", "folders"], 1, "no labels in {file}: give the --out"),
        (["report", "{file}"], 1, "no classifier and no labels in {file}: give the --out of"),
        (["verify", "{file}"], 1, "no output in {file}: give the --out of"),
        (["predict", "a.jpg", "--classifier", "{file}"], 1, "no classifier in {file}: give the"),
        (
            ["label", "{classes}", "--classifier", "{file}", "--out", "l"],
            1,
            "no classifier in {file}: give",
        ),
        (["verify", "{damaged}"], 1, "{damaged}/run.json is no record of flowerray's"),
        (["report", "{circle}", "--out", "r.html"], 1, "can't read {circle}: Too many levels"),
        (["extract", "{classes}", "--out", "f"], 1, "is no UTF-8 and so no class: rename"),
        (["label", "{twice}", "--classifier", "c", "--out", "l"], 1, "no classifier in c"),
        (["check", "{twice}"], 1, "{twice} has two columns uri: rename one"),
        (["extract", "{classes}", "--out", "f", "--seed", "-1"], 2, "--seed is -1; it must be at"),
        (
            *(["extract", "{classes}", "--out", "f", "--valid-fraction", "nan"], 2),
            "--valid-fraction is nan; it must be finite",
        ),
        (["extract", "{classes}", "--out", "f", "--weights", "imagnet"], 1, "neither imagenet nor"),
        (["weights", "fetch", "--file", "{circle}"], 1, "weights file {circle}: no such file"),
        (["weights", "fetch", "--file", "{classes}"], 1, "weights file {classes} has none of *.h5"),
        (["weights", "fetch", "--file", "{array}"], 1, "{array} is damaged"),
        (["sample", "{file}/sample"], 1, "can't write {file}/sample: Not a directory"),
        (["extract", "{classes}", "--out", "{classes}/f"], 2, "{classes}/f is inside of {classes}"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, code, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ("classes", "file", "damaged", "circle", "twice.csv", "array.npz")
    places = {file.partition(".")[0]: str(tmp_path / file) for file in files}
    for name in (b"rose", b"\xff"):
        folder = os.path.join(os.fsencode(places["classes"]), name)
        os.makedirs(folder)
        with open(os.path.join(folder, b"1.jpg"), "wb") as file:
            file.write(b"x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text('{"kind": "labels"}')
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "twice.csv").write_text("uri,uri\na.jpg,b.jpg\n")
    with open(places["array"], "wb") as file:
        np.save(file, np.zeros(3))
    assert main([word.format(**places) for word in arguments]) == code
    said = capsys.readouterr().err
    assert message.format(**places) in said.splitlines()[-1] and "Traceback" not in said


def test_a_damaged_cache_is_no_hindrance_to_looking(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path))
    (tmp_path / "vgg16.npz").write_bytes(b"half a file")
    assert main(["weights", "show"]) == 0
    assert "vgg16" not in capsys.readouterr().out


def test_help_shows_whatever_a_file_of_options_holds(capsys, tmp_path):
    (tmp_path / "job.yaml").write_text("out: labels-%d\ntop_k: 2\ngallery: 100%\n")
    with pytest.raises(SystemExit) as ended:
        main(["label", "--config", str(tmp_path / "job.yaml"), "--help"])
    assert ended.value.code == 0 and "100%]" in capsys.readouterr().out


def test_json_is_one_document_on_stdout(capsys):
    assert main(["bases", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vgg16"]["input_size"] == 224


def test_an_unknown_base_is_a_usage_error(capsys, tmp_path):
    images, out = tmp_path / "photographs", tmp_path / "f"
    assert main(["extract", str(images), "--out", str(out), "--base", "vgg61"]) == 2
    assert "flowerray bases" in capsys.readouterr().err


def test_job_scripts_are_the_commands(tmp_path):
    from conftest import REPOSITORY

    scripts = {*(REPOSITORY / "jobs").glob("*.py")} - {REPOSITORY / "jobs" / "serve.py"}  # Serve's
    for script in sorted(scripts):
        done = subprocess.run(
            [sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0 and "examples:" in done.stdout, done.stderr
