"""The page of a classifier: how good it is, where it errs, and how far its confidence goes."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import UndefinedError

from flowerray.errors import FlowerrayError
from flowerray.heads import classifier
from flowerray.heads.classifier import Classifier
from flowerray.reports import charts
from flowerray.reports.charts import Chart
from flowerray.reports.page import Page, fill
from flowerray.reports.thumbnails import thumbnails
from flowerray.stores.folder import Folder, located
from flowerray.trust import calibration
from flowerray.trust.scores import confusions

THUMBNAIL_SIDE = 192  # pixels
CONFUSION_CLASSES = 30  # a larger matrix is told by its largest errors
CONFUSIONS = 30
CURVE_CLASSES = 8  # lines that one chart can tell apart
CURVE_POINTS = 300
TARGETS = (0.9, 0.95, 0.99)  # precision
ASKED = (*(percent / 100 for percent in range(80, 100)), 0.995)  # precisions of the slider
ACCEPTED_ERRORS = 200  # listed at most
SHADES = 9  # of the confusion matrix, beside none


def render(directory: str, most_thumbnails: int) -> Page:
    """The page of the classifier in `directory`.

    Raises:
        FlowerrayError: there is none, or a part of it is damaged.
    """
    trained = classifier.load(directory)
    try:
        return _page(directory, trained, most_thumbnails)
    except (KeyError, TypeError, ValueError, UndefinedError) as error:
        raise FlowerrayError(
            f"{directory} lacks or misspells {error}: train again with this flowerray"
        ) from None


def _page(directory: str, trained: Classifier, most_thumbnails: int) -> Page:
    about = trained.about
    scores, mistakes = about["scores"], about["mistakes"]
    shown = mistakes[:most_thumbnails]
    pictures = thumbnails((m["uri"], THUMBNAIL_SIDE) for m in shown)
    table = classifier.evidence(directory)
    html = fill(
        "classifier.html",
        "accepting.js",
        name=located(directory).rpartition("/")[2],
        source=shlex.quote(directory),
        about=about,
        base=dataclasses.asdict(trained.base_spec),
        scores=scores,
        history=_history(directory),
        matrix=_matrix(scores),
        confusions=confusions(scores)[:CONFUSIONS],
        reliability=_reliability(about["calibration"]),
        evidence=_evidence(table, about["classes"]),
        accepting=_accepting(table, [c for c in about["classes"] if c != trained.none_class]),
        targets=TARGETS,
        mistakes=[{**m, "picture": pictures[m["uri"], THUMBNAIL_SIDE]} for m in shown],
        all_mistakes=len(mistakes),
    )
    return Page(html, scores["photographs"], sum(p.source is not None for p in pictures.values()))


def _history(directory: str) -> list[Chart]:
    """Charts of history.csv, one for the losses and one for the accuracies; none for one epoch."""
    try:
        text = Folder.at(directory).read("history.csv").decode()
        rows = list(csv.DictReader(text.splitlines()))
    except FileNotFoundError:
        return []
    if len(rows) < 2:
        return []
    drawn = []
    for quantity in ("loss", "accuracy"):
        curves = {
            "validation" if name.startswith("val") else "training": [float(r[name]) for r in rows]
            for name in rows[0]
            if name.endswith(quantity)
        }
        if curves:
            form = ".1%" if quantity == "accuracy" else ".4g"
            last = ", ".join(f"{name} {values[-1]:{form}}" for name, values in curves.items())
            drawn.append(
                charts.epochs(
                    quantity.capitalize(),
                    f"After the last of {len(rows)} epochs: {last}.",
                    curves,
                    shares=quantity == "accuracy",
                )
            )
    return drawn


def _matrix(scores: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of the confusion matrix, each cell with its shade: the share of its row."""
    if len(scores["confusion"]) > CONFUSION_CLASSES:
        return None
    rows = []
    for i, (name, counts) in enumerate(
        zip(scores["per_class"], scores["confusion"], strict=True),
    ):
        whole = max(sum(counts), 1)
        cells = [
            {
                "count": count,
                "shade": -(-count * SHADES // whole),
                "right": i == j,
            }
            for j, count in enumerate(counts)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _reliability(about: dict[str, Any]) -> Chart:
    return charts.reliability(
        "Accuracy against confidence",
        f"Expected calibration error {about['ece_before']:.1%} before and "
        f"{about['ece_after']:.1%} after calibration, "
        f"on {about['photographs']:,} photographs. The table gives each bin.",
        about["bins"],
    )


@dataclass(frozen=True)
class _Evidence:
    chart: Chart
    photographs: int
    splits: list[str]
    rows: list[dict[str, Any]]
    drawn: int


def _evidence(table: pa.Table, classes: list[str]) -> _Evidence:
    """What the evidence says of precision and coverage, by the class that is predicted."""
    right = np.asarray(table["label"]) == np.asarray(table["prediction"])
    predicted, confidence = np.asarray(table["prediction"]), np.asarray(table["confidence"])
    rows, curves = [], {}
    for name in classes:
        mine = predicted == name
        if not mine.any():
            rows.append(
                {
                    "name": name,
                    "photographs": 0,
                    "precision": None,
                    "targets": [None] * len(TARGETS),
                }
            )
            continue
        thresholds, coverage, precision = _curve(right[mine], confidence[mine])
        rows.append(
            {
                "name": name,
                "photographs": int(mine.sum()),
                "precision": float(precision[-1]),
                "targets": [_reaches(t, thresholds, coverage, precision) for t in TARGETS],
            }
        )
        curves[name] = _thinned(coverage), _thinned(precision)
    busiest = sorted(curves, key=lambda name: -int((predicted == name).sum()))[:CURVE_CLASSES]
    chart = charts.precision_coverage(
        "Precision against coverage",
        "A line a class, from its most confident photograph on the left to all on the right. "
        "The table gives the coverage at chosen precisions.",
        {name: curves[name] for name in classes if name in set(busiest)},
    )
    splits = sorted(table["split"].unique().to_pylist())
    return _Evidence(chart, len(table), splits, rows, len(busiest))


def _accepting(table: pa.Table, classes: list[str]) -> dict[str, Any]:
    """What accepting.js works on: of each precision that may be asked for, how many photographs of
    the evidence `flowerray label --min-precision` would accept, and which `errors` among these;
    of all that any accepts, the most confident ACCEPTED_ERRORS are listed."""
    names = pa.array(classes, pa.string())
    predicted = pc.fill_null(pc.index_in(table["prediction"], names), -1).to_numpy()
    confidence = table["confidence"].to_numpy()
    right = pc.equal(table["prediction"], table["label"]).to_numpy()
    familiar = table["novelty"].to_numpy() <= 1
    known = predicted[familiar], confidence[familiar], right[familiar]
    taken = []
    for precision in ASKED:
        found = calibration.thresholds(*known, classes, precision).values()
        least = [np.inf if one["threshold"] is None else one["threshold"] for one in found]
        # The last is of photographs that are predicted to be of none of the classes.
        taken.append(familiar & (confidence >= np.array([*least, np.inf])[predicted]))
    wrong = np.flatnonzero(np.any(taken, axis=0) & ~right)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    shown = wrong[:ACCEPTED_ERRORS]
    columns = ["uri", "label", "prediction", "confidence"]
    return {
        "photographs": len(table),
        "steps": [
            {
                "precision": precision,
                "accepted": int(one.sum()),
                "wrong": int((one & ~right).sum()),
                "errors": np.flatnonzero(one[shown]).tolist(),
            }
            for precision, one in zip(ASKED, taken, strict=True)
        ],
        "errors": table.select(columns).take(pa.array(shown)).to_pylist(),
    }


def _curve(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accepting what is at least as sure as each threshold, highest first: the thresholds, the
    share accepted, and the share of the accepted that is right; all (n,) for n distinct ones."""
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(right[order])
    last = np.append(np.flatnonzero(np.diff(sure)), len(sure) - 1)  # of photographs equally sure
    accepted = last + 1
    return sure[last], accepted / len(sure), hits[last] / accepted


def _reaches(
    target: float, thresholds: np.ndarray, coverage: np.ndarray, precision: np.ndarray
) -> dict[str, float] | None:
    """The lowest threshold with at least the `target` precision, and its coverage."""
    enough = np.flatnonzero(precision >= target)
    if not len(enough):
        return None
    return {
        "threshold": float(thresholds[enough[-1]]),
        "coverage": float(coverage[enough[-1]]),
    }


def _thinned(values: np.ndarray) -> np.ndarray:
    if len(values) <= CURVE_POINTS:
        return values
    return values[np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(int)]
