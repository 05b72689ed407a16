import json
import subprocess
import sys

import pytest

from flowerray.cli import COMMANDS, main, parser


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


def test_json_is_one_document_on_stdout(capsys):
    assert main(["bases", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vgg16"]["input_size"] == 224


def test_an_unknown_base_is_a_usage_error(capsys, tmp_path):
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "f"), "--base", "vgg61"]) == 2
    assert "flowerray bases" in capsys.readouterr().err


def test_job_scripts_are_the_commands(tmp_path):
    from conftest import REPOSITORY

    for script in sorted((REPOSITORY / "jobs").glob("*.py")):
        done = subprocess.run(
            [sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0 and "examples:" in done.stdout, done.stderr
