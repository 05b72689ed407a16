"""The page of a label run: what it gave, how sure it is, and a queue of what to look at."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.spec import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.outputs import shards
from flowerray.outputs.derived import acceptance_of, accepted_labels
from flowerray.outputs.record import Output, read_output
from flowerray.progress import Progress
from flowerray.reports import charts
from flowerray.reports.charts import Chart
from flowerray.reports.page import Page, fill
from flowerray.reports.thumbnails import Thumbnail, thumbnails
from flowerray.sources import uris
from flowerray.sources.photographs import REASONS
from flowerray.trust.acceptance import HUMAN, PILE_BOUND
from flowerray.trust.calibration import CONFIDENCE_OF_BOUND
from flowerray.trust.shift import Difference

QUEUE_SIDE, SHEET_SIDE = 400, 160  # pixels
QUEUE_SHARE, NOVEL_SHARE = 0.4, 0.1  # of the thumbnails; the contact sheets have the rest
SAMPLE_ROWS = 20  # rows kept for each thumbnail of the contact sheets, over all classes
BINS = 20  # of the confidence histogram
REJECT_EXAMPLES = 20  # of each reason
SHIFTS = {  # what `flowerray.trust.shift` compares, in words
    "photographs": "the photographs themselves",
    "confidence": "how sure the classifier is of them",
    "novelty": "how far they are from what it was trained on",
    "class mix": "how many are of which class",
}
Row = dict[str, Any]


def render(directory: str, most_thumbnails: int) -> Page:
    """The page of the labels in `directory`.

    The shards are streamed; only what is shown is kept.

    Raises:
        FlowerrayError: there are none, or a shard is damaged.
    """
    output = read_output(directory, "labels")
    config = {**output.run["config"], **acceptance_of(output.run)}
    config["classes"] = output.classes
    budget = _Budget.of(most_thumbnails)
    # The most probable of n classes has 1 / n at least.
    lowest = 1 / max(len(output.run["config"]["classes"]), 2)
    tally = _tally(output, _Tally(config["classes"], budget, lowest))
    queue, novel = tally.queue(), tally.most_novel.rows()
    sheets = _sheets(tally, most_thumbnails - len(queue) - len(novel))
    pictures = thumbnails(
        [(row["uri"], QUEUE_SIDE) for row in queue]
        + [(row["uri"], SHEET_SIDE) for row in novel]
        + [(row["uri"], SHEET_SIDE) for sheet in sheets for row in sheet["rows"]]
    )
    for row in [*novel, *(row for sheet in sheets for row in sheet["rows"])]:
        row["picture"] = pictures[row["uri"], SHEET_SIDE]
    html = fill(
        "labels.html",
        "review.js",
        name=output.folder.uri.rpartition("/")[2],
        source=shlex.quote(directory),
        config=config,
        made=output.run.get("made"),
        promises=_promises(output, tally),
        shifts=_shifts(output),
        base=dataclasses.asdict(BaseSpec.from_dict(config["base_spec"])),
        agreement=output.run.get("agreement"),
        timing=output.run.get("timing"),
        missing=len(output.missing()),
        tally=tally,
        histogram=_histogram(tally),
        classes=_classes(tally, acceptance_of(output.run)["thresholds"]),
        novel=novel,
        sheets=sheets,
        shown_in_sheets=sum(len(sheet["rows"]) for sheet in sheets),
        reasons=REASONS,
        review=_review(output, queue, pictures),
        waiting=tally.unsure_count + tally.novel_waiting,
    )
    shown = {uri for (uri, _), picture in pictures.items() if picture.source}
    return Page(html, tally.photographs, len(shown))


@dataclass(frozen=True)
class _Promise:
    """How many of the accepted labels are right at the least, of which photographs that holds, and
    what it rests on."""

    bound: float
    where: str
    basis: str


def _promises(output: Output, tally: _Tally) -> list[_Promise]:
    """By the thresholds, for the worst of the classes; and by an audit of these very labels."""
    found = []
    thresholds = acceptance_of(output.run)["thresholds"] or {}
    used = [thresholds[n] for n, some in zip(tally.classes, tally.accepted, strict=True) if some]
    # Of a class without a bound only what people said is accepted.
    used = [one for one in used if one["precision_bound"] is not None]
    if used:
        lowest = min(one["precision_bound"] for one in used)
        if used[0].get("of_pile"):
            basis = f"by earlier audited photographs, {PILE_BOUND:.0%} sure"
            found.append(_Promise(lowest, "on this pile", basis))
        else:
            basis = f"of each class, {CONFIDENCE_OF_BOUND:.0%} sure"
            found.append(_Promise(lowest, "on known classes", basis))
    audited = output.run.get("audited")
    if audited and audited["of"] == accepted_labels(output.run):
        basis = f"{audited['judged']:,} judged, {audited['wrong']:,} wrong; "
        basis += f"{100 * audited['bound_confidence']:g}% sure"
        found.append(_Promise(audited["bound"], "on this pile", basis))
    return found


def _shifts(output: Output) -> list[str]:
    """In what the pile doesn't look like the evidence, in words."""
    differences = (Difference(**one) for one in output.run.get("shift", []))
    return [SHIFTS[one.name] for one in differences if one.shifted]


@dataclass(frozen=True)
class _Budget:
    """Thumbnails in all, and for the parts of the page that have a bound of their own."""

    whole: int
    queue: int
    novel: int

    @classmethod
    def of(cls, most: int) -> _Budget:
        return cls(most, int(most * QUEUE_SHARE), int(most * NOVEL_SHARE))


class _Smallest:
    """The `size` rows of the smallest keys among all offered."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[float, int, Row]] = []  # the largest key first
        self._order = itertools.count(0, -1)  # of equal keys the first is kept

    @property
    def limit(self) -> float:
        """Keys from here on are of no use."""
        if len(self._heap) < self.size:
            return np.inf
        return -self._heap[0][0] if self._heap else -np.inf

    def offer(self, table: pa.Table, keys: np.ndarray) -> None:
        """Keep those rows of `table` whose `keys` (n,) are small enough; infinite ones never."""
        small = np.flatnonzero(keys < self.limit)
        small = small[np.argsort(keys[small], kind="stable")[: self.size]]
        for key, row in zip(keys[small], table.take(pa.array(small)).to_pylist(), strict=True):
            entry = (-float(key), next(self._order), row)
            if len(self._heap) < self.size:
                heapq.heappush(self._heap, entry)
            elif entry > self._heap[0]:
                heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[Row]:
        """What was kept, the smallest key first."""
        return [row for *_, row in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]


class _Tally:
    """Counts over all rows, and the few rows that may be shown.

    `human_count` are the photographs that people decided; what they called by another name than a
    class is counted there alone. Arrays are by class (classes,) or by bin of confidence (BINS,),
    between `edges` (BINS + 1,) from the `lowest` that it can be. To be reviewed is what was
    labelled and not accepted: it is novel where its novelty is above 1, else unsure.
    """

    def __init__(self, classes: list[str], budget: _Budget, lowest: float = 0.0) -> None:
        self.classes, self.budget = classes, budget
        self.edges = np.linspace(lowest, 1, BINS + 1)
        self.ends: list[str] = []  # the first and the last uri, in order
        self.below_half = 0
        self.human_count = 0
        self.photographs = self.novel_count = self.novel_waiting = self.unsure_count = 0
        self.has_thresholds = False
        self.labelled, self.accepted = np.zeros((2, len(classes)), int)
        self.confidence_sum = np.zeros(len(classes))
        self.accepted_bins, self.other_bins = np.zeros((2, BINS), int)
        self.rejects: Counter[str] = Counter()
        self.reject_examples: dict[str, list[Row]] = defaultdict(list)
        self.unsure, self.novel = _Smallest(budget.queue), _Smallest(budget.queue)
        self.most_novel = _Smallest(budget.novel)
        size = min(budget.whole, max(8, SAMPLE_ROWS * budget.whole // len(classes)))
        self.samples = [_Smallest(size) for _ in classes]
        self._sample_limits = np.array([sample.limit for sample in self.samples])
        self._chance = np.random.default_rng(0)

    def add(self, table: pa.Table) -> None:
        """Count the rows of a shard, and keep those that may be shown."""
        self.photographs += len(table)
        if len(table):
            ends = pc.min_max(table["uri"]).as_py().values()
            self.ends = [min(*self.ends[:1], *ends), max(*self.ends[1:], *ends)]
        self._add_rejects(table.filter(pc.is_valid(table["error"])))
        table = table.filter(pc.is_valid(table["label"]))
        code = pc.index_in(table["label"], value_set=pa.array(self.classes))
        self.human_count += _by_people(table)
        table, code = table.filter(pc.is_valid(code)), code.drop_null().to_numpy()
        confidence = table["confidence"].to_numpy()
        novelty = table["novelty"].to_numpy()
        accepted = pc.fill_null(table["accepted"], False).to_numpy()
        self.has_thresholds |= table["accepted"].null_count < len(table)
        is_novel = novelty > 1

        number = len(self.classes)
        self.labelled += np.bincount(code, minlength=number)
        self.accepted += np.bincount(code[accepted], minlength=number)
        self.confidence_sum += np.bincount(code, confidence, number)
        bins = np.clip(np.searchsorted(self.edges, confidence, "right") - 1, 0, BINS - 1)
        self.below_half += int((confidence < 0.5).sum())
        self.accepted_bins += np.bincount(bins[accepted], minlength=BINS)
        self.other_bins += np.bincount(bins[~accepted], minlength=BINS)
        self.novel_count += int(is_novel.sum())
        self.novel_waiting += int((is_novel & ~accepted).sum())
        self.unsure_count += int((~is_novel & ~accepted).sum())

        self.unsure.offer(table, np.where(accepted | is_novel, np.inf, confidence))
        self.novel.offer(table, np.where(is_novel & ~accepted, -novelty, np.inf))
        self.most_novel.offer(table, np.where(is_novel, -novelty, np.inf))
        self._sample(table, code)

    @property
    def pile(self) -> str:
        """The folder that all photographs lie in, at any depth; "" where they share none."""
        return uris.shared_folder(self.ends)

    def queue(self) -> list[Row]:
        """The rows to review, the least sure first; where there are too many, half of them the
        most novel and half the least sure."""
        size, novel, unsure = self.budget.queue, self.novel.rows(), self.unsure.rows()
        novel = novel[: max(size // 2, size - len(unsure))]
        chosen = [{**row, "reason": "novel"} for row in novel]
        chosen += [{**row, "reason": "unsure"} for row in unsure[: size - len(chosen)]]
        return sorted(chosen, key=lambda row: (row["confidence"], row["image_id"]))

    def _sample(self, table: pa.Table, code: np.ndarray) -> None:
        """A random sample of each class: the rows with the smallest of random keys."""
        keys = self._chance.random(len(table))
        useful = np.flatnonzero(keys < self._sample_limits[code])
        for one in np.unique(code[useful]):
            mine = useful[code[useful] == one]
            self.samples[one].offer(table.take(pa.array(mine)), keys[mine])
            self._sample_limits[one] = self.samples[one].limit

    def _add_rejects(self, table: pa.Table) -> None:
        for row in table.select(["uri", "error", "error_detail"]).to_pylist():
            self.rejects[row["error"]] += 1
            if len(self.reject_examples[row["error"]]) < REJECT_EXAMPLES:
                self.reject_examples[row["error"]].append(row)


def _tally(output: Output, tally: _Tally) -> _Tally:
    """`tally`, with all that `output` has."""
    progress = Progress("report", output.manifest.rows)
    progress.ready(0.0)
    try:
        for table in shards.iter_shards(output):
            tally.add(table)
            progress.add(len(table), len(table) - table["error"].null_count)
    except KeyError as error:
        raise FlowerrayError(
            f"{output.folder} has a shard of another make ({error}): "
            f"`flowerray verify {output.folder}` names it"
        ) from None
    progress.finish()
    return tally


def _sheets(tally: _Tally, budget: int) -> list[dict[str, Any]]:
    """For each class its photographs from most to least sure, evenly taken from its sample; the
    `budget` is shared out alike, and what a small class leaves goes to the others."""
    sheets, order = {}, np.argsort(tally.labelled, kind="stable")
    order = order[tally.labelled[order] > 0]
    for i, one in enumerate(order):
        share = budget // (len(order) - i)
        rows = sorted(tally.samples[one].rows(), key=lambda row: -row["confidence"])
        if len(rows) > share:
            rows = [rows[i] for i in np.linspace(0, len(rows) - 1, share).round().astype(int)]
        budget -= len(rows)
        sheets[one] = {
            "name": tally.classes[one],
            "photographs": int(tally.labelled[one]),
            "rows": rows,
        }
    return [sheets[one] for one in sorted(sheets) if sheets[one]["rows"]]


def _histogram(tally: _Tally) -> Chart:
    stacks = {"accepted": tally.accepted_bins, "to review": tally.other_bins}
    if not tally.has_thresholds:
        stacks = {"photographs": tally.other_bins}
    return charts.histogram(
        "Photographs by confidence",
        f"{tally.below_half:,} of {int(tally.labelled.sum()):,} have a confidence below 50%. "
        f"None can have less than {tally.edges[0]:.0%}: one in the number of classes. "
        "The table gives each bin.",
        tally.edges,
        stacks,
    )


def _classes(tally: _Tally, thresholds: dict[str, dict[str, Any]] | None) -> list[Row]:
    """A row a class: counts, the mean confidence, its threshold where there are thresholds."""
    return [
        {
            "name": name,
            "photographs": int(labelled),
            "accepted": int(accepted),
            "coverage": accepted / labelled if labelled else None,
            "confidence": total / labelled if labelled else None,
            "threshold": (thresholds or {}).get(name, {}).get("threshold"),
            "precision_bound": (thresholds or {}).get(name, {}).get("precision_bound"),
        }
        for name, labelled, accepted, total in zip(
            tally.classes, tally.labelled, tally.accepted, tally.confidence_sum, strict=True
        )
    ]


def _review(
    output: Output, queue: list[Row], pictures: Mapping[tuple[str, int], Thumbnail]
) -> dict[str, Any]:
    """What review.js works on. Decisions are kept under `run`: the same classifier, photographs."""
    config, entries = output.run["config"], []
    for row in queue:
        picture = pictures[row["uri"], QUEUE_SIDE]
        entries.append(
            {
                "uri": row["uri"],
                "label": row["label"],
                "confidence": row["confidence"],
                "novelty": row["novelty"],
                "reason": row["reason"],
                "top": [[t["label"], t["probability"]] for t in row["top_k"]],
                "picture": picture.source,
                "why": picture.why,
            }
        )
    made_of = f"{config['classifier']} {output.manifest.fingerprint}"
    run = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return {"run": run, "classes": config["classes"], "queue": entries}


def _by_people(table: pa.Table) -> int:
    """How many rows people decided; labels of before there was such a column have none."""
    if "source" not in table.column_names:
        return 0
    return pc.sum(pc.equal(table["source"], HUMAN)).as_py() or 0
