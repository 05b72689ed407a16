"""Whether people's answers teach, and what they may promise: choice, strangers, thresholds.

    python benchmarks/teaching.py EMBEDDINGS [--recipe logistic] [--seeds 3] [--curve-seeds 10]

EMBEDDINGS is an .npz of `own` float32 (n, width), the stored embeddings of photographs of unit
length, and `y` (n,), their class indices. The curve: errors by photographs labelled, chosen by
`suggest`, by the smallest margin after the same start, or at random, on a fifth that is held back
by another seed each time. The mixed piles: of two classes 250 each are labelled, everything else is
the pile, and each class in turn is the strangers; 80 are decided as `suggest` chooses, then 200
drawn at random from the surest half of what is left. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import dataclass

import numpy as np
from measure import machine
from sklearn.metrics import roc_auc_score

from flowerray.heads.dense import Fit, fit_logistic, fit_mlp, predict_dense
from flowerray.heads.folds import held_out
from flowerray.heads.none import answers, class_weights
from flowerray.trust.calibration import pooled_threshold
from flowerray.trust.suggest import doubt, suggest

RECIPES: dict[str, Fit] = {"logistic": fit_logistic, "mlp": fit_mlp}
STEPS = (20, 60, 120, 240, 480)
LABELLED, DECIDED, AUDITED = 250, 80, 200
SURE = 0.5  # the share of the pile that is audited
KEPT = 0.6  # of the known, at whose confidence strangers are counted
PRECISION = 0.97
BOUNDS = (0.8, 0.9, 0.95)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("embeddings")
    options.add_argument("--recipe", default="logistic", choices=tuple(RECIPES))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--curve-seeds", type=int, default=10)
    chosen = options.parse_args()
    with np.load(chosen.embeddings) as arrays:
        rows, truth = arrays["own"], arrays["y"]
    print(
        f"{machine()}, {datetime.date.today()}, {len(rows):,} photographs, {chosen.recipe}, "
        f"{chosen.curve_seeds} seeds of the curve, {chosen.seeds} of the piles.\n"
    )
    fit = RECIPES[chosen.recipe]
    curve(rows, truth, fit, chosen.curve_seeds)
    piles(rows, truth, fit, chosen.seeds)


def curve(rows: np.ndarray, truth: np.ndarray, fit: Fit, seeds: int) -> None:
    print("| errors at | " + " | ".join(map(str, STEPS)) + " |\n" + "|---" * (len(STEPS) + 1) + "|")
    for name in ("random", "margin", "suggest"):
        runs = np.array([labelled(rows, truth, fit, name, seed) for seed in range(seeds)])
        spread = runs.std(axis=0) / np.sqrt(seeds)
        figures = (f"{m:.1%} ± {s:.1%}" for m, s in zip(runs.mean(axis=0), spread, strict=True))
        print(f"| {name} | " + " | ".join(figures) + " |", flush=True)


def labelled(rows: np.ndarray, truth: np.ndarray, fit: Fit, choice: str, seed: int) -> list[float]:
    """The share of errors on what is held back, after each of STEPS."""
    chance = np.random.default_rng(seed)
    held, pool = np.split(chance.permutation(len(rows)), [len(rows) // 5])
    classes = int(truth.max()) + 1
    known, probabilities, errors = np.zeros(0, int), None, []
    for step in STEPS:
        if choice == "margin" and probabilities is not None:  # the least sure alone
            doubted = doubt(probabilities)
            doubted[known] = -1
            new = np.argsort(-doubted)[: step - len(known)]
        elif choice != "random":
            new = suggest(rows[pool], probabilities, step - len(known), seed, known)
        else:
            left = np.setdiff1d(np.arange(len(pool)), known)
            new = chance.choice(left, step - len(known), replace=False)
        known = np.append(known, new)
        said = Head.of(fit, rows, truth, pool[known], classes, None, seed)
        errors.append(float((said(rows[held]).argmax(axis=1) != truth[held]).mean()))
        probabilities = said(rows[pool])
    return errors


@dataclass(frozen=True)
class Head:
    layers: list[tuple[np.ndarray, np.ndarray]]
    there: np.ndarray
    classes: int

    @classmethod
    def of(
        cls,
        fit: Fit,
        rows: np.ndarray,
        labels: np.ndarray,
        taught: np.ndarray,
        classes: int,
        none: int | None,
        seed: int,
    ) -> Head:
        there, mine = np.unique(labels[taught], return_inverse=True)
        weights = class_weights(labels[taught], classes, none)[labels[taught]]
        return cls(fit(rows[taught], mine, weights, seed), there, classes)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), self.classes), np.float32)
        found[:, self.there] = predict_dense(self.layers, rows)
        return found


def piles(rows: np.ndarray, truth: np.ndarray, fit: Fit, seeds: int) -> None:
    runs = [
        mixed(rows, truth, fit, out, seed)
        for out in range(truth.max() + 1)
        for seed in range(seeds)
    ]
    print(f"\n| strangers | AUROC | strangers above the confidence of {KEPT:.0%} of the known |")
    print("|---|---|---|")
    for name, key in (("before", "before"), (f"{DECIDED} decided", "taught")):
        auroc, above = np.array([run[key] for run in runs]).T
        print(
            f"| {name} | {auroc.mean():.3f} ({auroc.min():.3f} to {auroc.max():.3f}) "
            f"| {above.mean():.1%} ({above.min():.1%} to {above.max():.1%}) |"
        )
    print(
        f"\n| thresholds for {PRECISION} | bound at | runs that accept | right often enough "
        "| right | share accepted | of an oracle's | runs with half of that |\n" + "|---" * 8 + "|"
    )
    for how in ("frozen", "taught again"):
        for bound in BOUNDS:
            right, share, oracle = np.array([run[how, bound] for run in runs]).T
            some = share > 0
            part = share / np.maximum(oracle, 1e-9)
            print(
                f"| {how} | {bound} | {some.sum()} of {len(runs)} "
                f"| {(right[some] >= PRECISION).sum()} of {some.sum()} "
                f"| {right[some].mean() if some.any() else np.nan:.1%} | {share.mean():.1%} "
                f"| {part.mean():.0%} | {(part >= 0.5).sum()} of {len(runs)} |"
            )


def mixed(rows: np.ndarray, truth: np.ndarray, fit: Fit, out: int, seed: int) -> dict:
    """One mixed pile, `out` the strangers' class: what was measured, by what it is called."""
    chance = np.random.default_rng(1000 * out + seed)
    none = int(truth.max())  # the strangers' number; those of the classes above move down
    labels = np.where(truth == out, none, truth - (truth > out))
    known = [chance.permutation(np.flatnonzero(labels == c))[:LABELLED] for c in range(none)]
    taught = np.concatenate(known)
    left = np.setdiff1d(np.arange(len(rows)), taught)

    head = Head.of(fit, rows, labels, taught, none + 1, none, seed)
    measured = {"before": told_apart(head(rows[left]), labels[left], none)}
    chosen = left[suggest(rows[left], head(rows[left])[:, :none], DECIDED, seed)]
    taught, left = np.append(taught, chosen), np.setdiff1d(left, chosen)

    head = Head.of(fit, rows, labels, taught, none + 1, none, seed)
    measured["taught"] = told_apart(head(rows[left]), labels[left], none)
    _, confidence = answers(head(rows[left]), none)
    sure = left[np.argsort(-confidence)[: int(SURE * len(left))]]
    audited = chance.choice(sure, AUDITED, replace=False)
    left = np.setdiff1d(left, audited)
    again = np.append(taught, audited)
    weights = class_weights(labels[again], none + 1, none)[labels[again]]
    judged = np.arange(len(taught), len(again))
    ways = {
        "frozen": (head, head(rows[audited])),
        "taught again": (
            Head.of(fit, rows, labels, again, none + 1, none, seed),
            held_out(fit, rows[again], labels[again], weights, judged, seed),
        ),
    }
    for how, (final, evidence) in ways.items():
        said, confidence = answers(evidence, none)
        final_said, final_confidence = answers(final(rows[left]), none)
        right = final_said == labels[left]
        for bound in BOUNDS:
            found = pooled_threshold(confidence, said == labels[audited], PRECISION, bound)
            least = np.inf if found["threshold"] is None else found["threshold"]
            accepted = (final_confidence >= least) & (final_said >= 0)
            precision = right[accepted].mean() if accepted.any() else np.nan
            best = oracle(np.where(final_said >= 0, final_confidence, -1), right)
            measured[how, bound] = precision, accepted.mean(), best
    return measured


def told_apart(probabilities: np.ndarray, labels: np.ndarray, none: int) -> tuple[float, float]:
    """AUROC of known against strangers, by confidence, and the share of strangers above the one
    that keeps KEPT of the known."""
    _, confidence = answers(probabilities, none)
    strange = labels == none
    least = np.quantile(confidence[~strange], 1 - KEPT)
    return roc_auc_score(~strange, confidence), float((confidence[strange] >= least).mean())


def oracle(confidence: np.ndarray, right: np.ndarray) -> float:
    """The largest share that a threshold could accept, with the truth known."""
    order = np.argsort(-confidence)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= PRECISION)
    return (enough[-1] + 1) / len(order) if len(enough) else 0.0


if __name__ == "__main__":
    main()
