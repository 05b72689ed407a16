"""The models after each epoch, so that a killed trainer goes on where it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from flowerray.bases.engines.keras import open_head
from flowerray.errors import FlowerrayError
from flowerray.heads import classifier
from flowerray.heads.data import Progress
from flowerray.outputs.lease import SCRATCH
from flowerray.stores.folder import Folder

CHECKPOINT = f"{SCRATCH}/checkpoint"


def is_over(history: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no smaller loss."""
    return bool(history) and patience is not None and len(history) - best_epoch(history) >= patience


def best_epoch(history: list[dict[str, float]]) -> int:
    """The epoch, counted from 1, with the smallest loss on photographs that were held out."""
    losses = [numbers.get("val_loss", 0.0) for numbers in history]
    return 1 + int(np.argmin(losses))


def history_in(out: Folder, config_fingerprint: str) -> list[dict[str, float]]:
    """The epochs that an earlier run of the same configuration did."""
    try:
        progress = json.loads(out.read(f"{CHECKPOINT}/progress.json"))
        same = progress["config_fingerprint"] == config_fingerprint
        return progress["history"] if same else []
    except (OSError, ValueError, KeyError):
        return []


class Checkpoint:
    """The models of so many `heads` after each epoch, so that a killed trainer goes on there.

    ``progress.json`` names the epoch whose models are there and is written after them.
    """

    def __init__(self, out: Folder, config_fingerprint: str, heads: int) -> None:
        self.out, self.config_fingerprint, self.heads = out, config_fingerprint, heads

    def load(self) -> tuple[list[dict[str, float]], list[Progress | None]]:
        """History of an earlier run of the same configuration and each head's model; without one
        none of either.

        Raises:
            FlowerrayError: a model holds what no recipe makes.
        """
        history = history_in(self.out, self.config_fingerprint)
        try:
            models = self._models(len(history), compile=True) if history else []
        except (OSError, ValueError, KeyError):
            models = []
        if not models:
            return [], [None] * self.heads
        return history, [Progress(len(history), model) for model in models]

    def models_after(self, epoch: int) -> list[Any]:
        """Each head's model after the best epoch, counted from 1.

        Raises:
            FlowerrayError: one holds what no recipe makes.
        """
        return self._models(epoch)

    def _models(self, epoch: int, compile: bool = False) -> list[Any]:
        return [self._model(_file(epoch, head), compile) for head in range(self.heads)]

    def _model(self, name: str, compile: bool) -> Any:
        head, file = self.out.read(name), self.out.file(name)
        try:  # as a classifier's: who may write here need not be who trains
            classifier.check_layers(head, file)
        except FlowerrayError as error:
            raise FlowerrayError(f"{error}; remove it to train anew") from None
        return open_head(head, compile=compile)

    def save(self, history: list[dict[str, float]], models: list[Any]) -> None:
        """Make `models`, after ``len(history)`` epochs, those to go on from."""
        for head, model in enumerate(models):
            self.out.write(_file(len(history), head), classifier.head_bytes(model))
        progress = {"config_fingerprint": self.config_fingerprint, "history": history}
        self.out.write(f"{CHECKPOINT}/progress.json", json.dumps(progress).encode())
        for epoch in range(1, len(history)):
            if epoch != best_epoch(history):
                for head in range(self.heads):
                    self.out.tidy(_file(epoch, head))


def _file(epoch: int, head: int) -> str:
    return f"{CHECKPOINT}/{epoch}-{head + 1}.keras"
