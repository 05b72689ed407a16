"""In which order the photographs of a pile are looked at: a mode of the review each."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np

from flowerray.errors import FlowerrayError
from flowerray.outputs import probabilities
from flowerray.outputs.derived import SAMPLE
from flowerray.review.desk import Desk
from flowerray.review.neighbours import Neighbours
from flowerray.review.pile import ACCEPTED
from flowerray.trust import drawn
from flowerray.trust.suggest import suggest

SUGGESTED = 80  # photographs at a time, before others are sought
MODES = {
    "queue": "Least sure first",
    "suggest": "What teaches most",
    "audit": "Audit: judge the accepted",
    "novel": "Unlike what was trained on",
    "class": "Class by class",
    "suspects": "Doubted in the labelled set",
    "everything": "Everything",
}


@dataclass(frozen=True)
class Order:
    """Rows of a pile, int64 (n,), in the order of a mode."""

    rows: np.ndarray
    blind: bool = False  # the labels aren't shown, so that they lead nobody


class Orders:
    """The orders of one pile's labels; made when first asked for, and kept."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.pile = desk, desk.pile
        self.neighbours = Neighbours(self.pile, self.pile.stored) if self.pile.stored else None
        self._suggested = np.zeros(0, np.int64)
        self._lock = Lock()
        self._sample: np.ndarray | None = None
        pile = self.pile
        rows = np.arange(pile.listed)
        here = slice(pile.listed)
        waits = (pile.label[here] >= 0) & (pile.accepted[here] != ACCEPTED) & ~pile.human[here]
        waiting = rows[waits]
        self._queue = waiting[np.argsort(pile.confidence[waiting], kind="stable")]
        novel = rows[pile.novelty[here] > 1]
        self._novel = novel[np.argsort(-pile.novelty[novel], kind="stable")]

    def why_not(self, mode: str) -> str | None:
        """Why there is no such order, in a line."""
        if mode == "suggest" and self.neighbours is None:
            return "needs stored features: label with --keep-features"
        if mode == "suspects" and not self.pile.suspects:
            return "needs what flowerray check found wrong: its --out, as --findings"
        if mode == "audit":
            if self.pile.acceptance["thresholds"] is None:
                return "nothing is accepted yet: flowerray accept, with --min-precision say"
            if self.sample is None:
                return "no sample is drawn yet"
        return None

    def of(
        self,
        mode: str,
        label: str | None = None,
        like: int | None = None,
        among: list[int] | None = None,
    ) -> Order:
        """The order of `mode`: of the photographs called `label` the surest first; or those most
        `like` a row first; or those `among` these rows.

        Raises:
            FlowerrayError: there is no such order.
        """
        if among is not None:
            return Order(np.array(among, np.int64))
        if like is not None:
            if self.neighbours is None:
                raise FlowerrayError("more like this needs stored features: --keep-features")
            if like >= self.pile.listed:
                raise FlowerrayError("more like this is for photographs of the pile")
            return Order(self.neighbours.like(like))
        if mode not in MODES:
            raise FlowerrayError(f"{mode} is no mode: take of {', '.join(MODES)}")
        if (reason := self.why_not(mode)) is not None:
            raise FlowerrayError(reason)
        if mode == "suggest":
            return Order(self._suggestions())
        if mode == "audit":
            assert self.sample is not None
            return Order(self.sample, blind=True)
        if mode == "suspects":
            return Order(np.arange(self.pile.listed, len(self.pile)))
        if mode == "class":
            return Order(self._of_class(label or self.pile.names[0]))
        return Order(
            {"queue": self._queue, "novel": self._novel}.get(mode, np.arange(self.pile.listed))
        )

    def left(self, mode: str) -> int:
        """How many photographs of `mode` nobody has decided, of what is known without work."""
        if self.why_not(mode) is not None:
            return 0
        if mode == "suggest":
            return self.desk.left(self._suggested) or min(
                SUGGESTED, int(self.desk.open[: self.pile.listed].sum())
            )
        if mode == "class":
            return int(self.desk.open[: self.pile.listed].sum())
        return self.desk.left(self.of(mode).rows)

    @property
    def sample(self) -> np.ndarray | None:
        """The rows that were drawn to be judged, in an order of chance; None where none were."""
        with self._lock:
            if self._sample is None and self.pile.output.folder.exists(SAMPLE):
                kept, _, _ = drawn.read(self.pile.output)
                uris = kept.filter(kept["drawn"])["uri"].combine_chunks()
                found = self.pile.find(uris)
                # As they lie they are by class: who judges would see what is to come.
                self._sample = np.random.default_rng(0).permutation(found[found >= 0])
            return self._sample

    def _of_class(self, label: str) -> np.ndarray:
        pile = self.pile
        number = pile.names.index(label) if label in pile.names else -2
        rows = np.flatnonzero(pile.label[: pile.listed] == number)
        return rows[np.argsort(-pile.confidence[rows], kind="stable")]

    def _suggestions(self) -> np.ndarray:
        """SUGGESTED rows, others when all of them are decided."""
        assert self.neighbours is not None
        with self._lock:
            if not self.desk.left(self._suggested):
                self._suggested = suggest(
                    self.neighbours.embeddings,
                    probabilities.likeliest(self.pile.output),
                    SUGGESTED,
                    len(self._suggested),
                    np.flatnonzero(~self.desk.open[: self.pile.listed]),
                )
            return self._suggested
