"""The loop as users run it, on mixed piles of real photographs: what people's answers change.

    python benchmarks/rounds.py FEATURES --work DIR [--recipe logistic] [--seeds 1]

FEATURES is what `flowerray extract flower_photos` wrote: the base is computed once for all. The
mixed piles are those of ``benchmarks/teaching.py``, but every step is a command's: of two classes
250 photographs each are labelled (a tenth of them to validate), everything else is the pile, and
each class in turn is the strangers. Train, label, suggest 80, accept the answers; train, label,
accept the surer half, audit 200; train, label, accept for 0.97. The answers are the true labels,
`none` for strangers. Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measure import machine
from sklearn.metrics import roc_auc_score
from stored import store
from teaching import AUDITED, DECIDED, KEPT, LABELLED, PRECISION, SURE, oracle

import flowerray
from flowerray.bases.spec import BaseSpec
from flowerray.heads.none import NONE
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.outputs.stored import StoredFeatures
from flowerray.pipeline.connection import connection
from flowerray.sources.listing import FOUND


@dataclass(frozen=True)
class Photographs:
    """All photographs: their uris and classes (n,), and stored embeddings (n, width)."""

    spec: BaseSpec
    uris: np.ndarray
    truth: np.ndarray
    embeddings: np.ndarray

    @classmethod
    def of(cls, features: str) -> Photographs:
        stored = StoredFeatures(read_output(features, "features"))
        table = shards.read_table(stored.output, ["uri", "label", "features", "error"])
        table = table.filter(table["error"].is_null())
        values = table["features"].combine_chunks().flatten().to_numpy()
        uris, truth = (np.array(table[name].to_pylist(), object) for name in ("uri", "label"))
        return cls(stored.spec, uris, truth, values.reshape(len(uris), -1))

    def part(self, directory: Path, rows: np.ndarray, split: list[str] | None) -> Path:
        """An output of these `rows` alone, labelled where they have a `split`."""
        found = pa.RecordBatch.from_pydict(
            {
                "uri": list(self.uris[rows]),
                "label": list(self.truth[rows]) if split else [None] * len(rows),
                "split": split or [None] * len(rows),
                "size": [None] * len(rows),
            },
            FOUND,
        )
        order = {uri: row for row, uri in zip(rows, self.uris[rows], strict=True)}
        listed = sorted(order)  # as a listing has them
        found = found.take(pa.array(np.argsort(self.uris[rows])))

        def embeddings(first: int, number: int) -> np.ndarray:
            return self.embeddings[[order[uri] for uri in listed[first : first + number]]]

        return store(directory, self.spec, [found], embeddings)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("features")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--recipe", default="logistic", choices=("logistic", "mlp"))
    options.add_argument("--seeds", type=int, default=1)
    chosen = options.parse_args()
    work, all_of = chosen.work.resolve(), Photographs.of(chosen.features)
    with connection(None):
        runs = [
            mixed(all_of, work / f"{stranger}-{seed}", stranger, seed, chosen.recipe)
            for stranger in sorted(set(all_of.truth))
            for seed in range(chosen.seeds)
        ]
    print(
        f"{machine()}, {datetime.date.today()}, {len(all_of.uris):,} photographs, {chosen.recipe}."
    )
    print(
        "\n| strangers | AUROC before, taught | strangers above, before, taught | accepted | right "
        "| of the strangers accepted | of an oracle's |\n" + "|---" * 7 + "|"
    )
    for run in runs:
        right = f"{run['right']:.1%}" if run["accepted"] else ""
        print(
            f"| {run['strangers']} | {run['before'][0]:.3f}, {run['taught'][0]:.3f} "
            f"| {run['before'][1]:.1%}, {run['taught'][1]:.1%} "
            f"| {run['accepted']} of {run['undecided']} | {right} "
            f"| {run['strange']:.1%} | {run['share']:.0%} |"
        )


def mixed_pile(
    all_of: Photographs, work: Path, stranger: str, seed: int
) -> tuple[Path, Path, dict[str, str]]:
    """Features of the labelled photographs and of the pile, in a new directory `work`, and the true
    answer of each photograph of the pile."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    known = [name for name in sorted(set(all_of.truth)) if name != stranger]
    taught = np.concatenate(
        [chance.permutation(np.flatnonzero(all_of.truth == name))[:LABELLED] for name in known]
    )
    split = [("valid" if i % 10 == 0 else "train") for i in range(len(taught))]
    features = all_of.part(work / "features", taught, split)
    left = np.setdiff1d(np.arange(len(all_of.uris)), taught)
    pile = all_of.part(work / "pile", left, None)
    answers = {
        uri: NONE if name == stranger else name
        for uri, name in zip(all_of.uris[left], all_of.truth[left], strict=True)
    }
    return features, pile, answers


def mixed(all_of: Photographs, work: Path, stranger: str, seed: int, recipe: str) -> dict[str, Any]:
    """One mixed pile, through the commands: what was measured, by what it is called."""
    features, pile, answers = mixed_pile(all_of, work, stranger, seed)
    flowerray.train(features, out=work / "c1", recipe=recipe, seed=seed)
    flowerray.label(pile, classifier=work / "c1", out=work / "l1")
    measured: dict[str, Any] = {"strangers": stranger}
    measured["before"] = told_apart(undecided(work / "l1"), answers)
    flowerray.suggest(work / "l1", number=DECIDED, out=work / "look.csv", seed=seed)
    flowerray.accept(work / "l1", corrections=filled(work / "look.csv", answers))

    again(features, pile, work, "1", "2", recipe, seed)
    rows = undecided(work / "l2")
    measured["taught"] = told_apart(rows, answers)
    sure = float(np.quantile([row["known"] for row in rows], 1 - SURE))
    flowerray.accept(work / "l2", min_confidence=sure)
    flowerray.audit(work / "l2", number=AUDITED, out=work / "audit.csv", seed=seed)
    flowerray.audit(work / "l2", judged=filled(work / "audit.csv", answers))

    again(features, pile, work, "2", "3", recipe, seed)
    flowerray.accept(work / "l3", min_precision=PRECISION)
    rows = undecided(work / "l3")
    right = np.array([row["label"] == answers[row["uri"]] for row in rows])
    strange = np.array([answers[row["uri"]] == NONE for row in rows])
    accepted = np.array([bool(row["accepted"]) for row in rows])
    sure_of = [row["known"] if row["label"] else -1.0 for row in rows]
    best = oracle(np.array(sure_of), right) * len(rows)
    return {
        **measured,
        "undecided": len(rows),
        "accepted": int(accepted.sum()),
        "right": right[accepted].mean() if accepted.any() else np.nan,
        "strange": (accepted & strange).sum() / strange.sum(),
        "share": accepted.sum() / max(best, 1),
    }


def again(
    features: Path, pile: Path, work: Path, before: str, now: str, recipe: str, seed: int
) -> None:
    """Train with what people said of the labels `before`, and label `now`."""
    said = work / f"l{before}" / "corrections.parquet"
    flowerray.train(
        features,
        out=work / f"c{now}",
        recipe=recipe,
        seed=seed,
        corrections=said,
        pile_features=pile,
    )
    flowerray.label(pile, classifier=work / f"c{now}", out=work / f"l{now}", corrections=said)


def undecided(labels: Path) -> list[dict[str, Any]]:
    """The rows that nobody has decided; `known` is the probability of the likeliest class that is
    given as a label."""
    output = read_output(str(labels), "labels")
    config = output.run["config"]
    columns = ["uri", "label", "accepted", "source", "probabilities"]
    rows = [
        row for row in shards.read_table(output, columns).to_pylist() if row["source"] != "human"
    ]
    for row in rows:
        row["known"] = max(
            one["p"]
            for one in row["probabilities"]
            if config["classes"][one["class"]] != config.get("none_class")
        )
    return rows


def told_apart(rows: list[dict[str, Any]], answers: dict[str, str]) -> tuple[float, float]:
    """As ``teaching.told_apart``, of labels."""
    strange = np.array([answers[row["uri"]] == NONE for row in rows])
    confidence = np.array([row["known"] for row in rows])
    least = np.quantile(confidence[~strange], 1 - KEPT)
    return roc_auc_score(~strange, confidence), float((confidence[strange] >= least).mean())


def filled(table: Path, answers: dict[str, str]) -> Path:
    """The table, with everybody's label in it."""
    with table.open(newline="") as stream:
        uris = [row["uri"] for row in csv.DictReader(stream)]
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("uri", "label"), *((uri, answers[uri]) for uri in uris)])
    return table


if __name__ == "__main__":
    main()
