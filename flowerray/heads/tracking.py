"""Where the numbers of a training are shown while it runs: TensorBoard logs, MLflow.

A tracker is given the whole history each time and logs what it lacks. So a training that was killed
and goes on, a task that Ray tries again or a server that was away cost no epoch and double none.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from flowerray.bases.spec import fingerprint_of
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier
from flowerray.progress import say
from flowerray.settings import TrainSettings
from flowerray.stores import is_remote
from flowerray.stores.folder import Folder

History = list[dict[str, float]]  # the numbers of each epoch, by name


class Tracker(Protocol):
    """One place that shows numbers; the name is its option's, the failures are those of its own."""

    name: str
    failures: tuple[type[Exception], ...]

    def epochs(self, history: History) -> None:
        """Log the epochs that are not logged yet."""

    def finished(self, history: History, scores: dict[str, float], out: Folder) -> None:
        """Log the epochs, and the classifier that they gave."""

    def close(self, status: str) -> None:
        """End, as FINISHED, FAILED or KILLED."""


@dataclasses.dataclass
class Trackers:
    """All that was asked for. One that fails is told of and let be: the training goes on."""

    trackers: list[Tracker]
    out: Folder

    def epochs(self, history: History) -> None:
        """Log what of `history` is not logged yet."""
        for tracker in list(self.trackers):
            try:
                tracker.epochs(history)
            except tracker.failures as error:
                self._let_be(tracker, error)

    def finished(self) -> None:
        """Log the classifier: its epochs, scores, calibration, files."""
        if not self.trackers:
            return
        rows = csv.DictReader(io.StringIO(self.out.read("history.csv").decode()))
        history = [{k: float(v) for k, v in row.items() if k != "epoch"} for row in rows]
        about = classifier.load(str(self.out)).about
        for tracker in list(self.trackers):
            try:
                tracker.finished(history, _final_numbers(about), self.out)
            except tracker.failures as error:
                self._let_be(tracker, error)

    def _let_be(self, tracker: Tracker, error: Exception) -> None:
        say(
            f"--{tracker.name} stopped ({_line(error)}); the training goes on, and the same "
            "command again logs what is missing"
        )
        self.trackers.remove(tracker)


@contextmanager
def started(
    settings: TrainSettings, base_spec: dict[str, Any], fingerprint: str, going_on: bool
) -> Iterator[Trackers]:
    """The trackers that `settings` ask for, for the length of the training of the configuration
    with this `fingerprint`; `going_on` if an earlier run has begun or finished it.

    Raises:
        UsageError: --mlflow without MLflow, or a relative path in a Ray job.
        FlowerrayError: the directory can't be made, or MLflow doesn't answer.
    """
    # MLflow tells a run's address on stdout, which is for the command's result.
    with (
        redirect_stdout(sys.stderr),
        _trackers(settings, base_spec, fingerprint, going_on) as found,
    ):
        yield found


@contextmanager
def _trackers(
    settings: TrainSettings, base_spec: dict[str, Any], fingerprint: str, going_on: bool
) -> Iterator[Trackers]:
    out = Folder.at(settings.out)
    if settings.tensorboard and is_remote(settings.tensorboard):
        raise UsageError("--tensorboard is a directory of this machine: give a local path")
    identity = fingerprint_of([str(out), fingerprint])
    name = f"{os.path.basename(str(out))}-{identity[:8]}"
    found: list[Tracker] = []
    if settings.tensorboard:
        found.append(TensorBoard(Path(str(Folder.at(settings.tensorboard)), name)))
    if settings.mlflow:
        unlogged = ("address", "overwrite", "tensorboard", "mlflow")
        parameters = {
            **{f"base.{key}": value for key, value in base_spec.items()},
            **{k: v for k, v in dataclasses.asdict(settings).items() if k not in unlogged},
        }
        found.append(MLflow(settings.mlflow, name, identity, parameters, going_on))
    status = "FAILED"
    trackers = Trackers(found, out)
    try:
        yield trackers
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for tracker in trackers.trackers:
            try:
                tracker.close(status)
            except tracker.failures as error:
                say(f"--{tracker.name}: {_line(error)}")


class TensorBoard:
    """One file of scalars in `directory`, written anew by each process from the history.

    The records are written by TensorFlow's file writer and not by ``tf.summary``, which would take
    hold of the GPUs of a process that computes nothing.
    """

    name = "tensorboard"

    def __init__(self, directory: Path) -> None:
        self.directory, self.writer, self.logged = directory, None, 0
        self.failures: tuple[type[Exception], ...] = (OSError,)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlowerrayError(f"can't write {directory}: {error.strerror}") from None

    def epochs(self, history: History) -> None:
        for epoch in range(self.logged + 1, len(history) + 1):
            self._write(history[epoch - 1], epoch)
        self.logged = max(self.logged, len(history))

    def finished(self, history: History, scores: dict[str, float], out: Folder) -> None:
        self.epochs(history)
        self._write(scores, len(history))

    def close(self, status: str) -> None:
        if self.writer is not None:
            self.writer.close()

    def _write(self, numbers: dict[str, float], step: int) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        v1 = tf.compat.v1
        if self.writer is None:
            self.failures = (OSError, tf.errors.OpError)
            for old in self.directory.glob("events.out.tfevents.*.flowerray"):
                old.unlink()
            made = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
            path = self.directory / f"events.out.tfevents.{made}.flowerray"
            self.writer = tf.io.TFRecordWriter(str(path))
            # START tells a TensorBoard that is open to forget the steps of the file before.
            start = v1.SessionLog(status=v1.SessionLog.START)
            for event in ({"file_version": "brain.Event:2"}, {"session_log": start}):
                self._append(v1.Event(wall_time=time.time(), **event))
        values = [v1.Summary.Value(tag=k, simple_value=v) for k, v in numbers.items()]
        summary = v1.Summary(value=values)
        self._append(v1.Event(wall_time=time.time(), step=step, summary=summary))

    def _append(self, event: Any) -> None:
        assert self.writer is not None
        self.writer.write(event.SerializeToString())
        self.writer.flush()


class MLflow:
    """A run in `experiment`, of MLFLOW_TRACKING_URI or MLflow's default; found again by a tag."""

    name = "mlflow"

    def __init__(
        self,
        experiment: str,
        run_name: str,
        identity: str,
        parameters: dict[str, Any],
        going_on: bool,
    ) -> None:
        try:
            import mlflow
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise UsageError(
                "--mlflow needs MLflow: pip install 'flowerray[mlflow]' (or mlflow itself)"
            ) from None
        self.failures: tuple[type[Exception], ...] = (OSError, MlflowException)
        self.run_name, self.identity, self.parameters = run_name, identity, parameters
        self.going_on, self.logged = going_on, set[tuple[str, int]]()
        self.run: str | None = None
        try:
            self.client: Any = MlflowClient()
            found = self.client.get_experiment_by_name(experiment)
            self.experiment = (
                found.experiment_id if found else self.client.create_experiment(experiment)
            )
        except self.failures as error:
            raise FlowerrayError(
                f"can't log to MLflow at {mlflow.get_tracking_uri()}: {_line(error)}; "
                "MLFLOW_TRACKING_URI names the server"
            ) from None

    def epochs(self, history: History) -> None:
        for epoch, numbers in enumerate(history, start=1):
            self._log(numbers, epoch)

    def finished(self, history: History, scores: dict[str, float], out: Folder) -> None:
        self.epochs(history)
        self._log(scores, len(history))
        with tempfile.TemporaryDirectory() as directory:
            for name in sorted(out.names(".") & {"classifier.json", *classifier.FILES}):
                Path(directory, name).write_bytes(out.read(name))
            self.client.log_artifacts(self.run, directory, "classifier")

    def close(self, status: str) -> None:
        if self.run is not None:
            self.client.set_terminated(self.run, status)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        if self.run is None:
            self.run = self._found() or self._new()
        now = int(time.time() * 1000)
        lacking = {k: v for k, v in numbers.items() if (k, step) not in self.logged}
        if lacking:
            metrics = [Metric(name, value, now, step) for name, value in lacking.items()]
            self.client.log_batch(self.run, metrics=metrics)
            self.logged |= {(name, step) for name in lacking}

    def _found(self) -> str | None:
        """The run that an earlier process began, and what it has logged."""
        if not self.going_on:
            return None
        wanted = f"tags.`flowerray.training` = '{self.identity}'"
        runs = self.client.search_runs(
            [self.experiment], wanted, order_by=["attributes.start_time DESC"], max_results=1
        )
        if not runs:
            return None
        run = runs[0].info.run_id
        for name in runs[0].data.metrics:
            history = self.client.get_metric_history(run, name)
            self.logged |= {(name, metric.step) for metric in history}
        self.client.update_run(run, status="RUNNING")
        return run

    def _new(self) -> str:
        from mlflow.entities import Param

        tags = {"flowerray.training": self.identity}
        run = self.client.create_run(self.experiment, tags=tags, run_name=self.run_name)
        given = {k: v for k, v in self.parameters.items() if v is not None}
        parameters = [Param(name, str(value)) for name, value in given.items()]
        self.client.log_batch(run.info.run_id, params=parameters)
        return run.info.run_id


def _final_numbers(about: dict[str, Any]) -> dict[str, float]:
    scores, calibration = about["scores"], about["calibration"]
    numbers = {
        **{f"final/{name}": scores[name] for name in ("accuracy", "errors", "photographs")},
        **{
            f"calibration/{name}": calibration[name]
            for name in ("temperature", "ece_before", "ece_after")
        },
        "fit_seconds": about["fit_seconds"],
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
