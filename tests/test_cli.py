import json
import os
import subprocess
import sys

import numpy as np
import pytest

from flowerray.cli import main
from flowerray.parser import COMMANDS, parser


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
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "flowerray extract" in error
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "{classes}", "--out", "c"], 1, "no features in {classes}: give the --out of"),
        (["evaluate", "{file}", "--truth", "folders"], 1, "no labels in {file}: give the --out"),
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
        (["weights", "fetch", "--file", "{classes}"], 1, "weights file {classes}: a directory"),
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

    for script in sorted((REPOSITORY / "jobs").glob("*.py")):
        done = subprocess.run(
            [sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0 and "examples:" in done.stdout, done.stderr
