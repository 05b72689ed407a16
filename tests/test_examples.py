"""The examples of docs/api.md and docs/configuration.md, run as they stand."""

import contextlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY

from flowerray.cli import main

pytestmark = pytest.mark.slow


def blocks_of(page, language):
    text = (REPOSITORY / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(few, local_ray, tmp_path_factory):
    """A directory with the things that the examples name."""
    directory = tmp_path_factory.mktemp("docs")
    (directory / "flower_photos").symlink_to(few.labelled)
    (directory / "pile").symlink_to(few.pile)
    (directory / "truth.csv").symlink_to(few.truth)
    with contextlib.chdir(directory):
        yield directory


def test_the_examples_of_the_calls_run(place, capsys):
    names = {}
    for block in blocks_of("api.md", "python"):
        exec(compile(block, "docs/api.md", "exec"), names)
    assert "--top-k is 0; it must be at least 1\n" in capsys.readouterr().out
    assert names["scores"]["photographs"] == 12
    assert len(names["labels"]) == 16


def test_the_examples_of_configuration_run(place, capsys, monkeypatch):
    """After those of the calls, which leave a classifier."""
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    if not (place / "classifier").exists():
        test_the_examples_of_the_calls_run(place, capsys)
    (yaml,) = blocks_of("configuration.md", "yaml")
    for block in blocks_of("configuration.md", "sh"):
        for line in block.splitlines():
            command, _, out = line.partition(" > ")
            if "--mlflow" in command:
                pytest.importorskip("alembic", reason="flowerray[mlflow] is not installed")
            capsys.readouterr()
            assert main(shlex.split(command)[1:]) == 0
            if out:
                path = Path(out).expanduser()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(capsys.readouterr().out)
        Path("job.yaml").write_text(yaml)
    assert (place / "labels" / "labels.csv").exists()
    assert (place / "other-labels" / "labels.csv").exists()
    assert list(Path("logs").glob("*/events.out.tfevents.*"))
    assert Path("mlflow.db").exists()
