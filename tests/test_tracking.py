"""A training's numbers in TensorBoard's and MLflow's own hands."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest

from flowerray.cli import main
from flowerray.commands.train import train
from flowerray.errors import FlowerrayError, UsageError
from flowerray.settings import TrainSettings

pytestmark = pytest.mark.slow

FINAL = {
    *("final/accuracy", "final/errors", "final/photographs", "fit_seconds"),
    *("calibration/temperature", "calibration/ece_before", "calibration/ece_after"),
}


@pytest.fixture
def features(fast):
    return str(fast / "whole")


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """A client of a store in a SQLite file, which the command and its children use too."""
    pytest.importorskip("mlflow", reason="flowerray[mlflow] is not installed")
    pytest.importorskip("alembic", reason="MLflow's SQLite store needs alembic")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # where artifacts go
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def scalars_of(directory):
    """Steps and values by tag, as TensorBoard reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (run,) = directory.iterdir()
    events = accumulator.EventAccumulator(str(run))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def history_of(classifier):
    rows = list(csv.DictReader((classifier / "history.csv").open()))
    names = set(rows[0]) - {"epoch"}
    return {n: [(int(row["epoch"]), float(row[n])) for row in rows] for n in names}


def test_a_killed_training_logs_each_epoch_once(features, mlflow, command, on_local_ray, tmp_path):
    out, logs = tmp_path / "classifier", tmp_path / "logs"
    options = ["train", features, "--recipe", "article", "--epochs", "30", "--out", str(out)]
    options += ["--tensorboard", str(logs), "--mlflow", "flowers"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerray.cli", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **on_local_ray},
        process_group=0,
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if "epoch 3 of 30: " in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "epoch 3 of 30: " in said[-1], said
    done = command(*options, **on_local_ray)
    assert done.returncode == 0 and "going on after epoch" in done.stderr, done.stderr

    history = history_of(out)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    scalars = scalars_of(logs)
    assert set(scalars) == set(history) | FINAL
    for name, points in history.items():
        assert [step for step, _ in scalars[name]] == list(range(1, 31))
        assert [value for _, value in scalars[name]] == pytest.approx([v for _, v in points])

    experiment = mlflow.get_experiment_by_name("flowers")
    (run,) = mlflow.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == set(history) | FINAL
    for name, points in history.items():
        logged = mlflow.get_metric_history(run.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in logged) == points
    about = json.loads((out / "classifier.json").read_text())
    assert run.data.metrics["final/errors"] == about["scores"]["errors"]
    assert run.data.params["recipe"] == "article" and run.data.params["base.base"] == "thumbnail"
    artifacts = {f.path for f in mlflow.list_artifacts(run.info.run_id, "classifier")}
    assert artifacts == {f"classifier/{file.name}" for file in out.iterdir()}

    # Trained already: the same command logs nothing twice, a new one logs what there is.
    assert main(options) == 0
    assert scalars_of(logs) == scalars
    (again,) = mlflow.search_runs([experiment.experiment_id])
    assert again.data.metrics == run.data.metrics
    assert main([*options[:-1], "later"]) == 0
    (later,) = mlflow.search_runs([mlflow.get_experiment_by_name("later").experiment_id])
    assert later.data.metrics == run.data.metrics


def test_a_training_anew_is_a_run_anew(features, mlflow, tmp_path):
    out, logs = tmp_path / "c", tmp_path / "logs"
    asked = {"features": features, "out": out, "tensorboard": logs, "mlflow": "e"}
    train(TrainSettings(**asked, recipe="logistic"))
    assert len(scalars_of(logs)["accuracy"]) == 1
    train(TrainSettings(**asked, recipe="logistic", overwrite=True))
    assert len(scalars_of(logs)["accuracy"]) == 1
    runs = mlflow.search_runs([mlflow.get_experiment_by_name("e").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2


def test_a_server_that_goes_away_costs_no_training(features, mlflow, tmp_path, capsys):
    """Its database becomes unreadable after the first epoch."""
    from flowerray.heads import tracking

    out = tmp_path / "c"
    settings = TrainSettings(features=features, out=out, recipe="article", epochs=2)
    train(settings)
    asked = TrainSettings(features=features, out=out, mlflow="e")
    with tracking.started(asked, {}, "0123", going_on=False) as trackers:
        trackers.epochs([{"loss": 1.0}])
        mlflow.set_terminated(trackers.trackers[0].run)
        mlflow.delete_run(trackers.trackers[0].run)
        trackers.epochs([{"loss": 1.0}, {"loss": 0.5}])
        assert trackers.trackers == []
        trackers.finished()
    assert "--mlflow stopped (" in capsys.readouterr().err


def test_what_cannot_be_logged_to_is_said_before_the_training(features, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    asked = {"features": features, "out": tmp_path / "c"}
    with pytest.raises(FlowerrayError, match=r"can't write .*file/"):
        train(TrainSettings(**asked, tensorboard=tmp_path / "file"))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"pip install 'flowerray\[mlflow\]'"):
        train(TrainSettings(**asked, mlflow="e"))
    assert not (tmp_path / "c").exists()


def test_an_mlflow_that_does_not_answer_is_named(features, mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(FlowerrayError, match=r"can't log to MLflow at http://127\.0\.0\.1:9: "):
        train(TrainSettings(features=features, out=tmp_path / "c", mlflow="e"))
