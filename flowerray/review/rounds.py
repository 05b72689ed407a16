"""Train and label again: the commands of the loop, run for the page, and what changed by them.

Each round has a directory of its own beside the labels, LABELS-rounds/N with classifier/ and
labels/; what was there before stays.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from flowerray.errors import FlowerrayError
from flowerray.outputs.corrections import CORRECTIONS
from flowerray.outputs.derived import THRESHOLDS
from flowerray.outputs.kinds import kind_of
from flowerray.review.pile import ACCEPTED, Pile

LINES = 200  # of progress that are kept


def directory_of(labels: str) -> Path:
    """Where the rounds after these labels lie."""
    return Path(f"{labels.rstrip('/')}-rounds")


def newest(labels: str) -> tuple[str, int]:
    """The labels of the last round that was finished, `labels` themselves in the first, and its
    number, from 1."""
    numbers = sorted(
        (int(path.name) for path in directory_of(labels).glob("*") if path.name.isdigit()),
        reverse=True,
    )
    for number in numbers:
        found = str(directory_of(labels) / str(number) / "labels")
        if kind_of(found) == "labels" and (directory_of(labels) / str(number) / "done").exists():
            return found, number
    return labels, 1


@dataclass
class Teaching:
    """A round as it runs: `state` is idle, running, done or failed."""

    state: str = "idle"
    step: str = ""
    command: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    changed: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As the page reads it."""
        lines = list(self.lines)
        return {
            "state": self.state,
            "step": self.step,
            "command": self.command,
            "line": lines[-1] if lines else "",
            "lines": lines,
            "changed": self.changed,
        }


class Rounds:
    """Runs the loop's commands, one round at a time; `first` are the labels that the review began
    with, `features` those of the labelled photographs, to train on."""

    def __init__(self, first: str, features: str | None, recipe: str) -> None:
        self.first, self.features, self.recipe = first, features, recipe
        self.teaching = Teaching()
        self._lock = Lock()
        self._running: subprocess.Popen[str] | None = None
        self._ended = False

    def why_not(self, pile: Pile) -> str | None:
        """Why no round can be run from `pile`, in a line."""
        if not pile.output.folder.is_local:
            return "the labels are in a store: run flowerray train and flowerray label yourself"
        if self.features is None:
            return "needs what to train on: flowerray review --features, the --out of extract"
        if pile.output.run.get("features") is None:
            return "needs stored features of the pile: label with --keep-features"
        return None

    def start(self, pile: Pile, number: int, then: Callable[[str], dict[str, Any]]) -> None:
        """Run round `number` from the corrections that `pile` keeps; `then` is called with its
        labels when it is done, and returns what they changed.

        Raises:
            FlowerrayError: one is running, or it can't be run.
        """
        if (reason := self.why_not(pile)) is not None:
            raise FlowerrayError(reason)
        with self._lock:
            if self.teaching.state == "running":
                raise FlowerrayError("a round is running already")
            self.teaching = Teaching("running", "train")
        Thread(target=self._run, args=(pile, number, then), daemon=True, name="round").start()

    def told(self, pile: Pile, number: int) -> dict[str, Any]:
        """How the round stands that is made, or was made last; before the first, what `number`
        would run."""
        told = self.teaching.as_dict()
        if told["state"] == "idle" and self.why_not(pile) is None:
            commands = self._commands(pile, self._place(number))
            told["command"] = " && ".join(_typed(words) for _, words in commands)
        return told

    def end(self) -> None:
        """Stop what runs, as Ctrl-C does: what it has done is gone on with the next time."""
        self._ended = True
        running = self._running
        if running is not None and running.poll() is None:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()

    def _run(self, pile: Pile, number: int, then: Callable[[str], dict[str, Any]]) -> None:
        teaching = self.teaching
        try:
            place = self._place(number)
            place.mkdir(parents=True, exist_ok=True)
            least = {n: t["threshold"] for n, t in (pile.acceptance["thresholds"] or {}).items()}
            known = {name: one for name, one in least.items() if one is not None}
            (place / THRESHOLDS).write_text(json.dumps(known))
            for step, words in self._commands(pile, place):
                teaching.step, teaching.command = step, _typed(words)
                self._do(words, teaching)
            (place / "done").touch()
            teaching.changed = then(str(place / "labels"))
            teaching.state = "done"
        except (FlowerrayError, OSError) as error:
            teaching.lines.append(str(error))
            teaching.state = "failed"
        except Exception as error:  # a thread's traceback nobody sees
            teaching.lines.append(f"{type(error).__name__}: {error}")
            teaching.state = "failed"

    def _place(self, number: int) -> Path:
        return directory_of(self.first) / str(number)

    def _commands(self, pile: Pile, place: Path) -> list[tuple[str, list[str]]]:
        assert self.features is not None
        kept, said = pile.output.run["features"], pile.output.folder.file(CORRECTIONS)
        classifier = str(place / "classifier")
        # A round that was cut short may have been about other answers.
        train = ["train", self.features, "--out", classifier, "--overwrite"]
        label = ["label", kept, "--classifier", classifier, "--out", str(place / "labels")]
        if pile.output.folder.exists(CORRECTIONS):
            train += ["--corrections", said, "--pile-features", kept]
            label += ["--corrections", said]
        if self.recipe != "mlp":
            train += ["--recipe", self.recipe]
        asked = pile.acceptance
        if asked["min_precision"] is not None:
            label += ["--min-precision", str(asked["min_precision"])]
        elif asked["min_confidence"] is not None:
            label += ["--min-confidence", str(asked["min_confidence"])]
        elif asked["thresholds"] is not None:
            label += ["--thresholds", str(place / THRESHOLDS)]
        return [("train", train), ("label", [*label, "--overwrite"])]

    def _do(self, words: list[str], teaching: Teaching) -> None:
        if self._ended:
            raise FlowerrayError("stopped")
        with subprocess.Popen(
            [sys.executable, "-m", "flowerray", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # a Ctrl-C of the review's is not theirs: `end` tells them
        ) as self._running:
            assert self._running.stderr is not None
            for line in self._running.stderr:
                teaching.lines.append(line.rstrip())
        if self._running.returncode:
            said = teaching.lines[-1] if teaching.lines else "it gave no reason"
            raise FlowerrayError(said)


def _typed(words: list[str]) -> str:
    return shlex.join(["flowerray", *words])


def changes(before: Pile, after: Pile) -> dict[str, Any]:
    """What a round changed: labels that are others now (from, to, count; none: no label), those
    accepted before and after, and how many are people's."""
    ids = before.ids[: before.listed], after.ids[: after.listed]
    shared, one, other = np.intersect1d(*ids, return_indices=True)
    names = [None, *dict.fromkeys([*before.names, *after.names])]
    was, now = (_numbered(pile, names)[rows] for pile, rows in ((before, one), (after, other)))
    changed = (was != now) & before.usable[one]
    pairs, counts = np.unique(np.stack([was[changed], now[changed]]), axis=1, return_counts=True)
    most = np.argsort(-counts, kind="stable")
    return {
        "photographs": len(shared),
        "flipped": [
            {"from": names[pairs[0, i]], "to": names[pairs[1, i]], "count": int(counts[i])}
            for i in most
        ],
        "accepted_before": int((before.accepted == ACCEPTED).sum()),
        "accepted_now": int((after.accepted == ACCEPTED).sum()),
        "human": int(after.human.sum()),
    }


def _numbered(pile: Pile, names: list[str | None]) -> np.ndarray:
    """The labels of `pile` as numbers of `names`, whose first stands for none: int64 (n,)."""
    places = np.array([*(names.index(name) for name in pile.names), 0])
    return places[pile.label]  # -1, of none, is the last
