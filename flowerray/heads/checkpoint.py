"""The model after each epoch, so that a killed trainer goes on where it was."""

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
    """The epoch, counted from 1, with the smallest loss on the validation photographs."""
    losses = [numbers.get("val_loss", 0.0) for numbers in history]
    return 1 + int(np.argmin(losses))


class Checkpoint:
    """The model after each epoch, so that a killed trainer goes on where it was.

    ``progress.json`` names the epoch's model and is written after it.
    """

    def __init__(self, out: Folder, config_fingerprint: str) -> None:
        self.out, self.config_fingerprint = out, config_fingerprint

    def history(self) -> list[dict[str, float]]:
        """The epochs that an earlier run of the same configuration did."""
        try:
            progress = json.loads(self.out.read(f"{CHECKPOINT}/progress.json"))
            same = progress["config_fingerprint"] == self.config_fingerprint
            return progress["history"] if same else []
        except (OSError, ValueError, KeyError):
            return []

    def load(self) -> tuple[list[dict[str, float]], Progress | None]:
        """History and model of an earlier run of the same configuration; empty without one.

        Raises:
            FlowerrayError: the model holds what no recipe makes.
        """
        history = self.history()
        if not history:
            return [], None
        try:
            model = self._model(len(history), compile=True)
        except (OSError, ValueError, KeyError):
            return [], None
        return history, Progress(len(history), model)

    def model_after(self, epoch: int) -> Any:
        """The model after the best epoch, counted from 1.

        Raises:
            FlowerrayError: it holds what no recipe makes.
        """
        return self._model(epoch)

    def _model(self, epoch: int, compile: bool = False) -> Any:
        name = f"{CHECKPOINT}/{epoch}.keras"
        head, file = self.out.read(name), self.out.file(name)
        try:  # as a classifier's: who may write here need not be who trains
            classifier.check_layers(head, file)
        except FlowerrayError as error:
            raise FlowerrayError(f"{error}; remove it to train anew") from None
        return open_head(head, compile=compile)

    def save(self, history: list[dict[str, float]], model: Any) -> None:
        """Make `model`, after ``len(history)`` epochs, the one to go on from."""
        self.out.write(f"{CHECKPOINT}/{len(history)}.keras", classifier.head_bytes(model))
        progress = {"config_fingerprint": self.config_fingerprint, "history": history}
        self.out.write(f"{CHECKPOINT}/progress.json", json.dumps(progress).encode())
        for epoch in range(1, len(history)):
            if epoch != best_epoch(history):
                self.out.tidy(f"{CHECKPOINT}/{epoch}.keras")
