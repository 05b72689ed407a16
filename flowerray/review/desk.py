"""Who looks at what, and what they decided: each photograph is one reviewer's at a time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.errors import FlowerrayError
from flowerray.outputs import corrections, lease
from flowerray.review.pile import Pile
from flowerray.sources.answers import ANSWERS

HELD_SECONDS = 120.0  # without a word from its reviewer a photograph is anybody's again
KEYS = 10_000  # of answers that may come again
FILES = 64  # that answers are in before they are put together


@dataclass(frozen=True)
class Decided:
    """What was said of a photograph, by whom and when (ISO 8601), in which round; None: taken
    back. `audited`: drawn at random to be judged, so that it is evidence too."""

    label: str | None
    who: str | None
    when: str
    round: int | None
    audited: bool


@dataclass(frozen=True)
class Held:
    """A photograph that lies before somebody, until a time of `Desk`'s clock."""

    who: str
    until: float


class Desk:
    """Hands photographs to reviewers, and keeps what they decide before it says so. Threads may
    share it."""

    def __init__(self, pile: Pile, round: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.pile, self.round = pile, round
        self._clock, self._lock, self._writing = clock, Lock(), Lock()
        self._held: dict[int, Held] = {}
        self._done: dict[str, list[list[tuple[int, Decided | None]]]] = defaultdict(list)
        self._files: list[str] = []
        self._answered: dict[str, list[int]] = {}
        self._ended = False
        self.decided: dict[int, Decided] = {}
        self._by: Counter[str | None] = Counter()
        self.is_decided = np.zeros(len(pile), bool)
        said = corrections.kept(pile.output.folder)
        rows = pile.find(said["uri"].combine_chunks())
        for row, answer in zip(rows, said.to_pylist(), strict=True):
            if row >= 0:
                self._set(
                    int(row),
                    Decided(
                        answer["label"],
                        answer["who"],
                        answer["when"] or "",
                        answer["round"],
                        bool(answer["audited"]),
                    ),
                )

    @property
    def open(self) -> np.ndarray:
        """Which rows can be decided and nobody has: bool (n,)."""
        return np.logical_and(self.pile.usable, np.logical_not(self.is_decided))

    def left(self, order: np.ndarray) -> int:
        """How many of the rows `order` are open."""
        return int(self.open[order].sum())

    def hand_out(
        self, who: str, order: np.ndarray, number: int, has: list[int], decided_too: bool = False
    ) -> tuple[list[int], int]:
        """The first `number` rows of `order` that `who` doesn't have yet and nobody else holds, now
        held for them; with `decided_too` those too that are decided. What they have already, `has`,
        stays held. And how far into `order` these go."""
        with self._lock:
            now = self._clock()
            self._held = {row: held for row, held in self._held.items() if held.until > now}
            mine = Held(who, now + HELD_SECONDS)
            for row in has:
                if self._held.get(row, mine).who == who:
                    self._held[row] = mine
            taken = {*has, *(row for row, held in self._held.items() if held.who != who)}
            may = (self.pile.usable if decided_too else self.open)[order]
            found: list[int] = []
            position = 0
            for position in map(int, np.flatnonzero(may)):
                if len(found) == number:
                    break
                if (row := int(order[position])) not in taken:
                    found.append(row)
            else:
                position = len(order)
            self._held.update((row, mine) for row in found if not self.is_decided[row])
            return found, position

    def is_here(self, who: str) -> None:
        """`who` gave a sign of life: what they hold stays theirs."""
        with self._lock:
            mine = Held(who, self._clock() + HELD_SECONDS)
            for row in [row for row, held in self._held.items() if held.who == who]:
                self._held[row] = mine

    def decide(self, who: str, rows: list[int], label: str, audited: bool, key: str = "") -> None:
        """Keep that `who` called these rows `label`. It is kept when this returns. One that has the
        `key` of another is the same, whose answer was lost, and is kept already.

        Raises:
            FlowerrayError: it can't be written.
        """
        answer = Decided(label, who, _now(), self.round, audited)
        with self._writing:  # so that what is kept and what is held agree
            if key in self._answered:
                return
            self._keep(rows, [answer] * len(rows))
            self._remember(key, rows)
            with self._lock:
                self._done[who].append([(row, self.decided.get(row)) for row in rows])
                for row in rows:
                    self._set(row, answer)
                    self._held.pop(row, None)

    def undo(self, who: str, key: str = "") -> list[int]:
        """Take back what `who` decided last, one photograph or many, in an earlier sitting too:
        their rows, which they hold again; `key` as of `decide`.

        Raises:
            FlowerrayError: it can't be written.
        """
        with self._writing:
            if key in self._answered:
                return self._answered[key]
            if not self._done[who]:
                self._done[who].extend(self._last_of(who))
            if not self._done[who]:
                return []
            before = self._done[who][-1]
            now = _now()
            answers = [
                Decided(old.label, old.who, now, old.round, old.audited)
                if old
                else Decided(None, who, now, self.round, False)
                for _, old in before
            ]
            self._keep([row for row, _ in before], answers)
            self._remember(key, [row for row, _ in before])
            with self._lock:
                self._done[who].pop()
                until = self._clock() + HELD_SECONDS
                for (row, old), answer in zip(before, answers, strict=True):
                    self._set(row, answer if old else None)
                    self._held[row] = Held(who, until)
        return [row for row, _ in before]

    def release(self, who: str) -> None:
        """Let others have what `who` holds."""
        with self._lock:
            for row in [row for row, held in self._held.items() if held.who == who]:
                del self._held[row]

    def take_over(self, before: Desk) -> None:
        """Keep what was said at the desk `before`, of earlier labels of the same photographs, since
        these were made; nothing more can be decided there.

        Raises:
            FlowerrayError: it can't be written.
        """
        with before._writing, self._writing:
            theirs = {int(before.pile.ids[row]): one for row, one in before.decided.items()}
            ours = {int(self.pile.ids[row]): one for row, one in self.decided.items()}
            changed = {
                id: theirs.get(id) or replace(ours[id], label=None, when=_now())
                for id in {*theirs, *ours}
                if theirs.get(id) != ours.get(id)
            }
            rows = self.pile.rows_of(sorted(changed)).tolist()
            if rows:
                answers = [changed[int(self.pile.ids[row])] for row in rows]
                self._keep(rows, answers)
                for row, answer in zip(rows, answers, strict=True):
                    self._set(row, answer)
            before._ended = True

    def take_in(self) -> None:
        """Have all that was decided in corrections.parquet, where other commands read it.

        Raises:
            FlowerrayError: another job writes to these labels.
        """
        output = self.pile.output
        with self._writing, lease.held(output.folder, "labels") as mine:
            corrections.keep(replace(output, folder=mine))
            self._files = []

    def counts(self) -> Counter[str]:
        """How many photographs are called what by people."""
        with self._lock:
            return Counter(one.label for one in self.decided.values() if one.label is not None)

    def by(self, who: str) -> int:
        """How many photographs `who` decided."""
        with self._lock:
            return self._by[who]

    def people(self) -> Counter[str]:
        """How many photographs each reviewer decided."""
        with self._lock:
            return Counter({who or "?": count for who, count in self._by.items() if count})

    def _last_of(self, who: str) -> list[list[tuple[int, Decided | None]]]:
        """What `who` decided last in an earlier sitting; what was said before is not known."""
        mine = {row: one.when for row, one in self.decided.items() if one.who == who}
        last = max(mine.values(), default="")
        return [[(row, None) for row, when in mine.items() if when == last]] if last else []

    def _remember(self, key: str, rows: list[int]) -> None:
        if key:
            self._answered[key] = rows
            while len(self._answered) > KEYS:
                del self._answered[next(iter(self._answered))]

    def _set(self, row: int, answer: Decided | None) -> None:
        if (before := self.decided.pop(row, None)) is not None:
            self._by[before.who] -= 1
        if answer is not None and answer.label is not None:
            self.decided[row] = answer
            self._by[answer.who] += 1
        self.is_decided[row] = row in self.decided

    def _keep(self, rows: list[int], answers: list[Decided]) -> None:
        if self._ended:
            raise FlowerrayError("the labels have just been renewed: once more")
        folder = self.pile.output.folder
        said: list[dict[str, Any]] = [
            {"uri": self.pile.detail(row).uri, **vars(answer)}
            for row, answer in zip(rows, answers, strict=True)
        ]
        self._files.append(corrections.add(folder, pa.Table.from_pylist(said, ANSWERS)))
        if len(self._files) >= FILES:
            self._files = corrections.put_together(folder, self._files)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
