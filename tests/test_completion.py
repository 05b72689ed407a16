"""What TAB offers."""

import shutil
import subprocess

import pytest

from flowerray.cli import main
from flowerray.parser import COMMANDS

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
completer=$(complete -p flowerray); completer=${completer##*-F }
${completer%% *} flowerray "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path, capsys):
    """What bash offers for the last of the words."""
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not here")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)

    def run(*words):
        done = subprocess.run(
            [bash, "--norc", "-c", BASH, "bash", tmp_path / "script", "flowerray", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    return run


def test_bash_completes_commands_options_choices_and_files(complete, tmp_path):
    assert complete("") >= set(COMMANDS)
    assert complete("ex") == {"extract", "export"}
    offered = complete("label", "--min")
    assert offered == {"--min-precision", "--min-confidence"}
    assert not {word for word in complete("label", "--") if word.startswith("--no-")}
    assert complete("label", "--format", "") == {"parquet", "csv", "jsonl"}
    assert complete("config", "la") == {"label"}
    (tmp_path / "classifier").mkdir()
    assert complete("label", "pile", "--classifier", "cl") == {"classifier"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_accepts_its_script(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not here")
    subprocess.run([shell, "-n", tmp_path / "script"], check=True)
