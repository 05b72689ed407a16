"""What the page can ask: a pile under review, from one round of labels to the next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from threading import Lock, Thread
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs import lease
from flowerray.outputs.corrections import CORRECTIONS
from flowerray.review import scatter
from flowerray.review.desk import Desk
from flowerray.review.orders import MODES, Order, Orders
from flowerray.review.pictures import Pictures
from flowerray.review.pile import ACCEPTED, WAITING, Pile, Suspect
from flowerray.review.rounds import Rounds, changes, newest
from flowerray.sources import names, tables, text_tables, uris
from flowerray.sources.columns import LIKELY
from flowerray.sources.photographs import Limits
from flowerray.stores.folder import Folder
from flowerray.trust import audit, drawn

Asked = dict[str, Any]
MOST_CARDS = 200  # of one answer
MOST_ROWS = 20_000  # that one decision is about
BOUND_CONFIDENCE = 0.95
LONGEST_NAME = 100  # of a reviewer or a class
STATES = {ACCEPTED: True, WAITING: False}


@dataclass
class Scatter:
    """The map: `state` is none, computing, ready or impossible."""

    state: str = "none"
    line: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))


class Round:
    """The labels of one round under review, and all that is about them."""

    def __init__(self, labels: str, number: int, suspects: list[Suspect]) -> None:
        self.number, self.pile = number, Pile(labels, suspects)
        self.desk = Desk(self.pile, number)
        self.orders = Orders(self.desk)
        self.scatter = Scatter()


class Session:
    """One review of the labels in a directory, and of those that rounds make of them. Threads may
    share it; each public method but `close` is a request of the page and returns its answer.

    Raises:
        FlowerrayError: there are no such labels, or not all of them.
    """

    def __init__(
        self,
        labels: str,
        features: str | None = None,
        recipe: str = "mlp",
        findings: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._suspects = suspects_in(findings) if findings else []
        self.pictures = Pictures(limits or Limits())
        self.rounds = Rounds(labels, features, recipe)
        self._lock = Lock()
        self.round = Round(*newest(labels), self._suspects)

    def close(self) -> None:
        """End what runs, and have all decisions in corrections.parquet."""
        self.rounds.end()
        self.round.desk.take_in()

    def uri_of(self, id: int) -> str | None:
        """Where the photograph of this number lies; None: it isn't of the pile."""
        pile = self.round.pile
        rows = pile.rows_of([id])
        return pile.detail(int(rows[0])).uri if len(rows) else None

    def pile_told(self, asked: Asked) -> Any:
        """The pile, how it stands, and what can be done."""
        now = self.round
        pile, desk, orders = now.pile, now.desk, now.orders
        if isinstance(asked.get("who"), str):
            desk.is_here(asked["who"])
        counts = desk.counts()
        folder = pile.output.folder
        return {
            "name": _name(pile),
            "out": str(folder),
            "round": now.number,
            "photographs": pile.listed,
            "classes": pile.classes,
            "none": pile.none,
            "new_classes": sorted(counts.keys() - {*pile.classes, pile.none}),
            "accepted": int((pile.accepted == ACCEPTED).sum()),
            "waiting": orders.left("queue"),
            "min_precision": pile.acceptance["min_precision"],
            "modes": [
                {
                    "name": mode,
                    "title": title,
                    "left": orders.left(mode),
                    "why_not": orders.why_not(mode),
                }
                for mode, title in MODES.items()
            ],
            "like": None if orders.neighbours else "needs stored features: --keep-features",
            "teach": self.rounds.why_not(pile),
            **_totals(now, asked),
        }

    def cards(self, asked: Asked) -> Any:
        """The next photographs for a reviewer, theirs alone to decide."""
        now, who, grid = self.round, _who(asked), bool(asked.get("grid"))
        number = min(_number(asked, "number", 8), MOST_CARDS)
        mode, after = str(asked.get("mode", "queue")), _number(asked, "after", 0) if grid else 0
        order = _order(now, asked)
        # What is only looked through shows what is decided too; what is to be done does not.
        browsing = mode in ("class", "everything") or _chosen(asked)
        has = [int(row) for row in now.pile.rows_of(_numbers(asked, "held"))]
        rows, position = now.desk.hand_out(who, order.rows[after:], number, has, grid and browsing)
        return {
            "cards": [_card(now, row, order.blind) for row in rows],
            "left": now.desk.left(order.rows),
            "cursor": after + position,
        }

    def decide(self, asked: Asked) -> Any:
        """Keep what a reviewer said of some photographs."""
        now, who, label = self.round, _who(asked), names.class_name(_text(asked, "label"))
        ids = _numbers(asked, "ids")
        if not label or len(label) > LONGEST_NAME:
            raise UsageError("a decision needs a class, in few words")
        rows = now.pile.rows_of(ids)
        if not ids or len(rows) != len(set(ids)):
            raise UsageError("a decision needs photographs of this pile")
        judged = asked.get("mode") == "audit"
        if judged and now.orders.sample is not None:
            judged = bool(np.isin(rows, now.orders.sample).all())
        now.desk.decide(who, [int(row) for row in rows], label, judged, str(asked.get("key", "")))
        return _after(now, asked)

    def undo(self, asked: Asked) -> Any:
        """Take back what a reviewer decided last."""
        now = self.round
        rows = now.desk.undo(_who(asked), str(asked.get("key", "")))
        blind = asked.get("mode") == "audit"
        return {"cards": [_card(now, row, blind) for row in rows], **_after(now, asked)}

    def release(self, asked: Asked) -> Any:
        """A reviewer has gone: others may have what lay before them."""
        self.round.desk.release(_who(asked))
        return {}

    def draw_audit(self, asked: Asked) -> Any:
        """Draw accepted labels to be judged."""
        number = _number(asked, "number", 300)
        if number < 1:
            raise UsageError("draw one label at least")
        now = self.round
        pile = now.pile
        if pile.acceptance["thresholds"] is None:
            raise FlowerrayError(str(now.orders.why_not("audit")))
        with self._lock:
            if now.orders.sample is not None:
                raise FlowerrayError("a sample is drawn already: judge that")
            accepted = drawn.accepted_of(pile.output)
            if not len(accepted):
                raise FlowerrayError("nothing is accepted that nobody has decided")
            rows = pile.rows_of(accepted["image_id"].to_pylist())
            accepted = accepted.filter(pa.array(np.logical_not(now.desk.is_decided[rows])))
            with lease.held(pile.output.folder, "labels") as mine:
                found = drawn.draw(replace(pile.output, folder=mine), accepted, number, seed=0)
        return {"drawn": len(found)}

    def end_told(self, asked: Asked) -> Any:
        """What was decided, how the precision stands, and the commands to go on with."""
        now = self.round
        counts = now.desk.counts()
        total = sum(counts.values())
        each = ", ".join(f"{count:,} {name}" for name, count in counts.most_common(8))
        people = now.desk.people()
        lines = [f"{total:,} decided: {each}" if total else "nothing is decided yet"]
        if len(people) > 1:
            lines.append("by " + ", ".join(f"{who} {n:,}" for who, n in people.most_common()))
        return {
            "lines": lines,
            "by_class": dict(counts.most_common()),
            "bound": _bound(now),
            "commands": self.commands(),
        }

    def commands(self) -> list[str]:
        """What to type after this review."""
        now = self.round
        folder = now.pile.output.folder
        said = folder.file(CORRECTIONS)
        words = [["accept", str(folder)]]
        if now.pile.acceptance["thresholds"] is None:
            words[0] += ["--min-precision", "0.97"]
        if now.orders.sample is not None and not now.desk.left(now.orders.sample):
            words.append(["audit", str(folder), "--judged", said])
        if self.rounds.features and (kept := now.pile.output.run.get("features")):
            taught = ["train", self.rounds.features, "--out", f"{folder}-classifier"]
            words.append([*taught, "--corrections", said, "--pile-features", kept])
        return [shlex.join(["flowerray", *command]) for command in words]

    def map_told(self, asked: Asked) -> Any:
        """The map as far as it is made."""
        pile, found = self.round.pile, self.round.scatter
        rows = found.rows if found.state == "ready" else found.rows[:0]
        return {
            "state": found.state,
            "line": found.line,
            "of": pile.listed,
            "labels": [*pile.names, pile.none],
            "points": {
                "id": pile.ids[rows].tolist(),
                "x": _plain(found.points[:, 0]) if len(rows) else [],
                "y": _plain(found.points[:, 1]) if len(rows) else [],
                "label": np.where(pile.label[rows] < 0, len(pile.names), pile.label[rows]).tolist(),
                "confidence": _plain(pile.confidence[rows]),
                "novelty": _plain(pile.novelty[rows]),
                "accepted": [STATES.get(int(one)) for one in pile.accepted[rows]],
            },
        }

    def make_map(self, asked: Asked) -> Any:
        """Begin to make it."""
        with self._lock:
            now = self.round
            found = now.scatter
            if now.orders.neighbours is None:
                found.state, found.line = "impossible", "needs stored features: --keep-features"
            elif found.state == "none":
                found.state = "computing"
                found.rows = scatter.sample(np.flatnonzero(now.pile.usable[: now.pile.listed]))
                found.line = f"arranging {len(found.rows):,} photographs, up to a minute"
                _in_background(found, now.orders)
        return self.map_told(asked)

    def teaching(self, asked: Asked) -> Any:
        """How the round stands that is being made."""
        return self.rounds.told(self.round.pile, self.round.number + 1)

    def teach(self, asked: Asked) -> Any:
        """Train and label again, by what people said."""
        _who(asked)
        with self._lock:
            now = self.round
            if (reason := self.rounds.why_not(now.pile)) is not None:
                raise FlowerrayError(reason)
            if not now.desk.decided:
                raise FlowerrayError("nothing is decided yet: there is nothing to learn")
            now.desk.take_in()
            self.rounds.start(now.pile, now.number + 1, self._renew)
        return self.teaching(asked)

    def _renew(self, labels: str) -> dict[str, Any]:
        """Go on with the labels of a new round, and with what was said since it began."""
        before, after = self.round, Round(labels, self.round.number + 1, self._suspects)
        after.desk.take_over(before.desk)
        self.round = after
        return {"round": after.number, **changes(before.pile, after.pile)}


def suspects_in(findings: str) -> list[Suspect]:
    """The photographs that `flowerray check --out` calls mislabelled, the most suspicious first.

    Raises:
        FlowerrayError: there is no such file, or it holds no findings.
    """
    at = Folder.at(findings).uri
    wanted = ("uri", "check", "label", "suggested_label", "score")
    found = []
    for rows in tables.read(at, LIKELY, "uri", wanted):
        if not {"check", "suggested_label"} <= set(rows.schema.names):
            raise FlowerrayError(f"{findings} holds no findings: give the --out of flowerray check")
        for row in rows.to_pylist():
            if row["check"] == "mislabelled" and row["uri"] and row["suggested_label"]:
                place = text_tables.at(at, row["row"])
                uri = uris.of_cell(row["uri"], at.rpartition("/")[0], place)
                label, suggested = row.get("label"), str(row["suggested_label"])
                score = _share(row.get("score"))
                found.append(Suspect(uri, names.class_name(label), suggested, score))
    return found


def _name(pile: Pile) -> str:
    """The pile's: the last of the folders that its photographs share."""
    if not pile.listed:
        return str(pile.output.folder)
    ends = (pile.detail(row).uri for row in (0, pile.listed - 1))
    return uris.shared_folder(ends).rpartition("/")[2] or str(pile.output.folder)


def _share(written: Any) -> float:
    try:
        return min(1.0, max(0.0, float(written)))
    except (TypeError, ValueError):
        return 0.0


def _in_background(found: Scatter, orders: Orders) -> None:
    def make() -> None:
        try:
            assert orders.neighbours is not None
            found.points = scatter.in_two_dimensions(orders.neighbours.embeddings[found.rows])
            found.state, found.line = "ready", ""
        except Exception as error:  # a thread's traceback nobody sees
            found.state, found.line = "impossible", f"no map: {error}"

    Thread(target=make, daemon=True, name="map").start()


def _chosen(asked: Asked) -> bool:
    return asked.get("like") is not None or asked.get("ids") is not None


def _order(now: Round, asked: Asked) -> Order:
    like = asked.get("like")
    rows = now.pile.rows_of([_integer(like)]) if like is not None else None
    if rows is not None and not len(rows):
        raise UsageError("more like which photograph?")
    among = None
    if asked.get("ids") is not None:
        among = now.pile.rows_of(_numbers(asked, "ids")).tolist()
    label = asked.get("class")
    return now.orders.of(
        str(asked.get("mode", "queue")),
        None if label is None else str(label),
        None if rows is None else int(rows[0]),
        among,
    )


def _card(now: Round, row: int, blind: bool) -> dict[str, Any]:
    pile, detail = now.pile, now.pile.detail(row)
    decided = now.desk.decided.get(row)
    blind = blind and decided is None
    about: dict[str, Any] = {"label": None, "confidence": None, "novelty": None, "top": []}
    if not blind:
        about = {
            "label": pile.names[pile.label[row]] if pile.label[row] >= 0 else None,
            "confidence": _value(pile.confidence[row]),
            "novelty": _value(pile.novelty[row]),
            "top": [{"label": name, "p": p} for name, p in detail.top],
        }
    return {
        "id": int(pile.ids[row]),
        "uri": detail.uri,
        "name": detail.uri.rpartition("/")[2],
        **about,
        "accepted": STATES.get(int(pile.accepted[row])),
        "decided": decided and {"label": decided.label, "who": decided.who, "when": decided.when},
        "blind": blind,
    }


def _totals(now: Round, asked: Asked) -> dict[str, int]:
    who = asked.get("who")
    return {
        "decided": len(now.desk.decided),
        "yours": now.desk.by(who) if isinstance(who, str) else 0,
    }


def _after(now: Round, asked: Asked) -> dict[str, int]:
    mode = asked.get("mode")
    left = now.orders.left(mode) if isinstance(mode, str) and mode in MODES else 0
    return {**_totals(now, asked), "left": left}


def _bound(now: Round) -> dict[str, Any] | None:
    """What the judged of a drawn sample say of the accepted labels' precision."""
    sample = now.orders.sample
    if sample is None or not len(sample):
        return None
    if missing := now.desk.left(sample):
        judged = len(sample) - missing
        line = f"{judged:,} of {len(sample):,} judged; the bound comes with the last"
        return {"line": line, "holds": None}
    kept, asked, _ = drawn.read(now.pile.output)
    kept = kept.filter(kept["drawn"])
    rows = now.pile.find(kept["uri"].combine_chunks())
    said = [now.desk.decided.get(int(row)) for row in rows]
    right = np.array(
        [
            one is not None and one.label == label
            for one, label in zip(said, kept["label"].to_pylist(), strict=True)
        ],
        bool,
    )
    found = audit.overall(asked, right, BOUND_CONFIDENCE)
    wanted = now.pile.acceptance["min_precision"]
    line = (
        f"on this pile at least {found.bound:.1%} of {found.labels:,} accepted labels are "
        f"right ({BOUND_CONFIDENCE:.0%} sure); {found.judged:,} judged, {found.wrong:,} wrong"
    )
    return {"line": line, "holds": None if wanted is None else found.bound >= wanted}


def _who(asked: Asked) -> str:
    who = _text(asked, "who").strip()
    if not who or len(who) > LONGEST_NAME:
        raise UsageError("say who you are, in few words")
    return who


def _text(asked: Asked, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 62:
        raise UsageError(f"{value!r} is no number of a photograph")
    return value


def _number(asked: Asked, name: str, otherwise: int) -> int:
    value = asked.get(name)
    return otherwise if value is None else max(0, _integer(value))


def _numbers(asked: Asked, name: str) -> list[int]:
    values = asked.get(name) or []
    if not isinstance(values, list) or len(values) > MOST_ROWS:
        raise UsageError(f"{name} must be numbers of photographs, {MOST_ROWS:,} at most")
    return [_integer(value) for value in values]


def _value(number: Any) -> float | None:
    return None if np.isnan(number) else float(number)


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(one) else round(float(one), 4) for one in values]
