"""What a reviewer's time is worth in the grid, against one photograph after another.

    python benchmarks/reviewing.py FEATURES --work DIR [--recipe logistic] [--right 0.97]

FEATURES is what `flowerray extract flower_photos` wrote. The mixed piles are those of
``benchmarks/rounds.py``: 250 photographs of each of two classes are labelled, the rest and the
whole third class, the strangers, is the pile. A simulated reviewer, who answers by the true labels
and `none` for strangers, works through the review's own session until so many of the pile's labels
are right, people's and the classifier's together:

- one by one: the least sure first, 1 s each; train and label again after every 80;
- in the grid: the least sure one's 60 nearest that nobody has decided on a page, 2 s for each batch
  of one label; train and label again after every 5 pages.

What training takes is nobody's time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from measure import machine
from rounds import Photographs, mixed_pile

import flowerray
from flowerray.heads.none import NONE
from flowerray.pipeline.connection import connection
from flowerray.review.session import Session

DECISION, BATCH = 1.0, 2.0  # seconds of the reviewer
EACH, PAGE, PAGES = 80, 60, 5
WHO = "ann"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("features")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--recipe", default="logistic", choices=("logistic", "mlp"))
    options.add_argument("--right", type=float, default=0.97)
    chosen = options.parse_args()
    all_of = Photographs.of(chosen.features)
    with connection(None):
        import ray

        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # for the rounds
        reviewed = [
            both(all_of, chosen.work.resolve() / stranger, stranger, chosen)
            for stranger in sorted(set(all_of.truth))
        ]
    print(f"{machine()}, {datetime.date.today()}, {chosen.recipe}, {chosen.right:.0%} right.\n")
    print(
        "| strangers | pile | right before | one by one: decisions, minutes, rounds "
        "| in the grid: decisions, photographs, minutes, rounds | times fewer |\n"
        + "|---" * 6
        + "|"
    )
    for one in reviewed:
        told(*one)


def told(
    stranger: str, pile: int, before: float, single: dict[str, Any], grid: dict[str, Any]
) -> None:
    fewer = f"{single['decisions'] / grid['decisions']:.1f} decisions"
    faster = f"{single['seconds'] / grid['seconds']:.1f} minutes"
    print(
        f"| {stranger} | {pile:,} | {before:.1%} "
        f"| {single['decisions']:,}, {single['seconds'] / 60:.1f}, {single['rounds']} "
        f"| {grid['decisions']:,}, {grid['photographs']:,}, {grid['seconds'] / 60:.1f}, "
        f"{grid['rounds']} | {fewer}, {faster} |"
    )


def both(all_of: Photographs, work: Path, stranger: str, chosen: Any) -> tuple[Any, ...]:
    """One mixed pile, reviewed either way: what `told` takes."""
    features, pile, truth = mixed_pile(all_of, work, stranger, 0)
    flowerray.train(features, out=work / "classifier", recipe=chosen.recipe)
    flowerray.label(pile, classifier=work / "classifier", out=work / "single")
    shutil.copytree(work / "single", work / "grid")
    done = []
    for name, work_through in (("single", one_by_one), ("grid", in_the_grid)):
        session = Session(str(work / name), str(features), chosen.recipe)
        before = share_right(session, truth)
        spent = {"decisions": 0, "photographs": 0, "seconds": 0.0, "rounds": 0}
        while share_right(session, truth) < chosen.right:
            work_through(session, truth, spent)
            if session.round.desk.open.any():
                again(session)
                spent["rounds"] += 1
        done.append(spent)
        session.close()
    return stranger, len(truth), before, *done


def one_by_one(session: Session, truth: dict[str, str], spent: dict[str, Any]) -> None:
    for card in session.cards({"who": WHO, "mode": "queue", "number": EACH})["cards"]:
        decide(session, [card["id"]], truth[card["uri"]], spent, DECISION)


def in_the_grid(session: Session, truth: dict[str, str], spent: dict[str, Any]) -> None:
    for _ in range(PAGES):
        first = session.cards({"who": WHO, "mode": "queue", "number": 1})["cards"]
        if not first:
            return
        # Only what is open: a page shows the decided too, and they are passed over.
        asked = {"who": WHO, "like": first[0]["id"], "grid": True, "number": 200, "after": 0}
        page: list[dict[str, Any]] = []
        while len(page) < PAGE:
            told = session.cards(asked)
            page += [card for card in told["cards"] if card["decided"] is None]
            if told["cursor"] == asked["after"] or not told["cards"]:
                break
            asked["after"] = told["cursor"]
        batches: dict[str, list[int]] = defaultdict(list)
        for card in page[:PAGE]:
            batches[truth[card["uri"]]].append(card["id"])
        for label, ids in batches.items():
            decide(session, ids, label, spent, BATCH)


def decide(
    session: Session, ids: list[int], label: str, spent: dict[str, Any], seconds: float
) -> None:
    session.decide({"who": WHO, "ids": ids, "label": label})
    spent["decisions"] += 1
    spent["photographs"] += len(ids)
    spent["seconds"] += seconds


def again(session: Session) -> None:
    """Train and label again, as the page does."""
    session.release({"who": WHO})
    session.teach({"who": WHO})
    while (state := session.teaching({}))["state"] == "running":
        time.sleep(0.2)
    assert state["state"] == "done", state


def share_right(session: Session, truth: dict[str, str]) -> float:
    """Of the pile's labels, people's and the classifier's; no label says `none`."""
    pile, decided = session.round.pile, session.round.desk.decided
    right = 0
    for row in range(pile.listed):
        label = pile.names[pile.label[row]] if pile.label[row] >= 0 else NONE
        said = decided[row].label if row in decided else label
        right += said == truth[pile.detail(row).uri]
    return right / pile.listed


if __name__ == "__main__":
    main()
