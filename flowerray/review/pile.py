"""The photographs of a labels output, as a review needs them: a few numbers of each in memory, the
rest read from its shard when somebody looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowerray.heads.none import NONE
from flowerray.outputs import shards
from flowerray.outputs.derived import acceptance_of
from flowerray.outputs.record import read_output
from flowerray.outputs.stored import StoredFeatures
from flowerray.trust.acceptance import HUMAN

NUMBERS = ["image_id", "label", "confidence", "novelty", "accepted", "source"]
DETAILS = ["uri", "top_k"]
FIRST_SUSPECT = 1 << 40  # of the numbers of photographs that aren't of the pile
SHARDS_KEPT = 64  # of their details, which lie close together where people look at them in order
ACCEPTED, WAITING, UNDECIDED = 1, 0, -1  # of a label: thresholds took it, or not; there are none


@dataclass(frozen=True)
class Suspect:
    """A photograph of the labelled set whose `label` is doubted: another is `suggested`, with this
    `score`, see ``flowerray.trust.findings.Finding``."""

    uri: str
    label: str | None
    suggested: str
    score: float


@dataclass(frozen=True)
class Detail:
    """What one photograph shows on the page: `top` are its likeliest classes with probabilities."""

    uri: str
    top: list[tuple[str, float]]


class Pile:
    """The labels in one output; and after them the `suspects`, photographs of the labelled set that
    `flowerray check` doubts.

    Attributes, by row of all `listed` photographs in order of image_id, and then of the suspects:
    `ids` int64, `label` int32 into `names` (-1: none), `confidence` and `novelty` float32 (NaN:
    none), `accepted` int8 (ACCEPTED, WAITING or UNDECIDED), `human` and `usable` bool.

    Raises:
        FlowerrayError: the output is not whole, or a shard is damaged.
    """

    def __init__(self, directory: str, suspects: Sequence[Suspect] = ()) -> None:
        self.output = read_output(directory, "labels")
        self.output.check_whole()
        config = self.output.run["config"]
        self.classes = self.output.classes
        self.none: str = config.get("none_class") or NONE
        self.acceptance = acceptance_of(self.output.run)
        self.names = list(self.classes)
        self.ids: np.ndarray
        self.label: np.ndarray
        self.confidence: np.ndarray
        self.novelty: np.ndarray
        self.accepted: np.ndarray
        self.human: np.ndarray
        columns: dict[str, list[np.ndarray]] = {name: [] for name in (*NUMBERS, "usable")}
        self._shards = shards.shard_names(self.output)
        rows = []
        for table in shards.iter_shards(self.output, [*NUMBERS, "error"]):
            rows.append(len(table))
            for name, values in self._numbers(table).items():
                columns[name].append(values)
        self._starts = np.cumsum([0, *rows])
        self.listed, self.suspects = int(self._starts[-1]), list(suspects)
        for name, values in self._suspected().items():
            columns[name].append(values)
        self.ids, self.label, self.confidence, self.novelty, self.accepted, self.human = (
            np.concatenate(columns[name]) for name in NUMBERS
        )
        self.usable = np.concatenate(columns["usable"])
        self._details = lru_cache(SHARDS_KEPT)(self._read_details)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def stored(self) -> StoredFeatures | None:
        """The features that these are the labels of, where they are kept."""
        where = self.output.run.get("features")
        return StoredFeatures(read_output(where, "features")) if where else None

    def rows_of(self, ids: list[int]) -> np.ndarray:
        """The rows (n,) of photographs by image_id; those that aren't there are left out."""
        wanted = np.array([id for id in ids if abs(id) < 1 << 62], np.int64)
        rows = np.searchsorted(self.ids, wanted)
        rows = rows[rows < len(self)]
        return rows[np.isin(self.ids[rows], wanted)]

    def detail(self, row: int) -> Detail:
        """What is to be shown of a row."""
        if row >= self.listed:
            suspect = self.suspects[row - self.listed]
            return Detail(suspect.uri, [(suspect.suggested, suspect.score)])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        table = self._details(number).slice(row - int(self._starts[number]), 1)
        top = table["top_k"][0].as_py() or []
        return Detail(table["uri"][0].as_py(), [(one["label"], one["probability"]) for one in top])

    def find(self, uris: pa.Array) -> np.ndarray:
        """The row of each of `uris`, as they are listed: int64 (n,), -1 where it isn't there."""
        found = np.full(len(uris), -1, np.int64)
        if not len(uris):
            return found
        for start, table in zip(
            self._starts, shards.iter_shards(self.output, ["uri"]), strict=False
        ):
            places = pc.index_in(table["uri"], value_set=uris)
            there = np.flatnonzero(pc.is_valid(places).to_numpy())
            found[places.drop_null().to_numpy()] = start + there
        if self.suspects:
            theirs = pa.array([suspect.uri for suspect in self.suspects])
            places = pc.fill_null(pc.index_in(uris, value_set=theirs), -1).to_numpy()
            found = np.where((found < 0) & (places >= 0), self.listed + places, found)
        return found

    def chunks(self) -> Any:
        """(first row, shard's name, uris) of each shard, in order."""
        tables = shards.iter_shards(self.output, ["uri"])
        for start, name, table in zip(self._starts, self._shards, tables, strict=False):
            yield int(start), name, table["uri"]

    def _numbers(self, table: pa.Table) -> dict[str, np.ndarray]:
        label = table["label"]
        for name in label.unique().drop_null().to_pylist():
            if name not in self.names:  # people named it
                self.names.append(name)
        source = table["source"] if "source" in table.column_names else pa.nulls(len(table))
        accepted = pc.fill_null(pc.cast(table["accepted"], pa.int8()), UNDECIDED)
        return {
            "image_id": table["image_id"].to_numpy(),
            "label": pc.fill_null(pc.index_in(label, pa.array(self.names)), -1).to_numpy(),
            "confidence": pc.fill_null(table["confidence"], np.nan).to_numpy(),
            "novelty": pc.fill_null(table["novelty"], np.nan).to_numpy(),
            "accepted": accepted.to_numpy(),
            "source": pc.fill_null(pc.equal(source, HUMAN), False).to_numpy(zero_copy_only=False),
            "usable": pc.is_null(table["error"]).to_numpy(),
        }

    def _suspected(self) -> dict[str, np.ndarray]:
        count = len(self.suspects)
        for suspect in self.suspects:
            if suspect.label is not None and suspect.label not in self.names:
                self.names.append(suspect.label)
        labels = [-1 if s.label is None else self.names.index(s.label) for s in self.suspects]
        nothing = np.full(count, np.nan, np.float32)
        return {
            "image_id": FIRST_SUSPECT + np.arange(count),
            "label": np.array(labels, np.int32),
            "confidence": nothing,
            "novelty": nothing,
            "accepted": np.full(count, UNDECIDED, np.int8),
            "source": np.zeros(count, bool),
            "usable": np.ones(count, bool),
        }

    def _read_details(self, number: int) -> pa.Table:
        name = self._shards[number]
        with shards.faults_told(self.output, name):
            file = self.output.folder.open(f"shards/{name}", DETAILS)
            return pq.read_table(file, columns=DETAILS)
