"""Deciding which labels are accepted, as often as wanted, after the labels are there.

Shards are rewritten one by one. The record says that they are being decided from before the first
until after the last, so that one that is killed is gone on with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases import hardware
from flowerray.bases.spec import fingerprint_of
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads.none import NONE
from flowerray.outputs import corrections, lease, shards
from flowerray.outputs.derived import (
    LABEL_FILES,
    REVIEW,
    TABLE_WRITERS,
    acceptance_of,
    delete_derived,
    is_of_ours,
)
from flowerray.outputs.manifest import Shard
from flowerray.outputs.record import Output, read_output, with_record, without_record
from flowerray.outputs.review import COLUMNS, review_queue
from flowerray.progress import Progress, say, some_names
from flowerray.settings import AcceptanceSettings, AcceptSettings
from flowerray.sources import answers
from flowerray.sources.answers import Applied
from flowerray.sources.columns import Columns
from flowerray.trust.acceptance import HUMAN, Acceptance, Decision, asked_for

DECIDED = b"flowerray_decided"  # in a shard's metadata: by which decision it was


@dataclass(frozen=True)
class AcceptSummary:
    """What was decided: `labels` and `accepted` count by class, `human` the photographs that a
    person decided, `unlabelled` those that are none of the classes; `corrections` says what became
    of those that were given."""

    out: str
    photographs: int
    labels: dict[str, int]
    accepted: dict[str, int] | None
    human: int
    unlabelled: int
    rejected: dict[str, int]
    corrections: Applied | None


def accept(settings: AcceptSettings) -> AcceptSummary:
    """Decide anew which labels are accepted, and write the review queue.

    Raises:
        FlowerrayError: no labels or not all of them, nothing asked for, no evidence for a
            precision, corrections of other photographs.
    """
    output = read_output(settings.labels, "labels", deciding=True)
    output.check_whole()
    with lease.held(output.folder, "labels") as mine:
        output = dataclasses.replace(output, folder=mine)
        decision, applied = decision_asked(output, settings, settings.columns)
        if decision is None and settings.corrections is not None:
            raise FlowerrayError(
                f"{settings.corrections} has no answer yet: fill in its column label, none where "
                "it is none of the classes"
            )
        if decision is None:
            raise UsageError(
                "say what is accepted: --min-precision, --min-confidence, --thresholds, or what "
                "people said: --corrections"
            )
        output, formats = decided(output, decision)
        counts = finished(output, formats)
        output = closed(output)
    return AcceptSummary(
        str(output.folder),
        output.manifest.rows,
        {name: counts.labels[name] for name in output.classes},
        None
        if acceptance_of(output.run)["thresholds"] is None
        else {name: counts.accepted[name] for name in output.classes},
        counts.human,
        counts.unlabelled,
        dict(counts.rejected.most_common()),
        applied,
    )


def decision_asked(
    output: Output, settings: AcceptanceSettings, columns: Columns
) -> tuple[Decision | None, Applied | None]:
    """What is to be decided, as the settings ask, else as it was last, None if nothing ever was;
    and what became of corrections, None without some."""
    asked = asked_for(
        settings,
        output.classes,
        str(output.folder),
        partial(corrections.listed_in, output),
    )
    acceptance = asked or Acceptance(**acceptance_of(output.run))
    applied = None
    if settings.corrections is None:
        said = corrections.keep(output)
    else:
        read = answers.read(settings.corrections, columns)
        said = corrections.keep(output, read, settings.corrections)
        applied = corrections.applied(output, read, said)
    if asked is None and acceptance.thresholds is None and not len(said):
        return None, applied
    none_class = output.run["config"].get("none_class", NONE)
    strange = sorted(set(said["label"].to_pylist()) - {*output.classes, none_class, None})
    if strange:
        named = some_names(strange)
        say(f"accept: {named}: no class of this classifier; taken as people said it")
    uris, labels = (said[name].combine_chunks() for name in ("uri", "label"))
    return Decision(acceptance, uris, labels, none_class), applied


def decided(output: Output, decision: Decision) -> tuple[Output, list[str]]:
    """`output` with all its shards decided, those that are already left as they are; and the
    formats of the tables that were made of it and have to be made again. Who calls it makes them,
    then calls `closed`."""
    acceptance = dataclasses.asdict(decision.acceptance)
    mark = _mark(decision, acceptance)
    if output.run.get("decided") == mark and "deciding" not in output.run:
        return output, []
    formats = [ending for ending in LABEL_FILES if is_of_ours(output.folder, ending)]
    output = with_record(output, deciding=output.run.get("deciding", formats))
    delete_derived(output.folder, output.run)
    output = with_record(output, acceptance=acceptance, decided=mark)
    there = output.folder.names("shards")
    to_do = [shard for shard in output.manifest.shards() if shard.name in there]
    progress = Progress("accept", sum(shard.rows for shard in to_do))
    progress.ready(0)
    with ThreadPoolExecutor(2 * hardware.available_cpus()) as pool:
        for shard in pool.map(partial(_decide, output, decision, mark.encode()), to_do):
            progress.add(shard.rows, 0)
    progress.finish()
    return output, output.run["deciding"]


def undecided(output: Output) -> Output:
    """`output` before more of its labels are made: what is made of all goes, and nobody decided
    these."""
    delete_derived(output.folder, output.run)
    return without_record(without_record(output, "decided"), "audited")


def closed(output: Output) -> Output:
    """`output` after a decision, when all that is made of it is there."""
    return without_record(output, "deciding")


def _mark(decision: Decision, acceptance: dict[str, Any]) -> str:
    """What tells this decision from others, in the metadata of shards."""
    said = hashlib.sha256(
        json.dumps([decision.uris.to_pylist(), decision.answers.to_pylist()]).encode()
    )
    return fingerprint_of([acceptance, said.hexdigest(), decision.none_class])


def _decide(output: Output, decision: Decision, mark: bytes, shard: Shard) -> Shard:
    table = shards.read_shard(output, shard)
    assert table is not None  # of those that are there
    if (table.schema.metadata or {}).get(DECIDED) == mark:  # by one that was cut short
        return shard
    table = decision(table)
    about = {**(table.schema.metadata or {}), DECIDED: mark}
    shards.write_shard(output, shard, table.replace_schema_metadata(about))
    return shard


class Counts:
    """Photographs of each label, accepted, rejected for each reason, decided by people, without a
    label though they could be read, and more novel than 1."""

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.human = self.unlabelled = self.novel = 0

    def add(self, table: pa.Table) -> None:
        self.labels.update(shards.counted(table["label"]))
        self.rejected.update(shards.counted(table["error"]))
        accepted = table["label"].filter(pc.fill_null(table["accepted"], False))
        self.accepted.update(shards.counted(accepted))
        if "source" in table.column_names:  # since there is such a step
            self.human += pc.sum(pc.equal(table["source"], HUMAN)).as_py() or 0
            self.unlabelled += len(table) - table["unlabelled"].null_count
        self.novel += pc.sum(pc.greater(table["novelty"], 1)).as_py() or 0


COUNTED = {"label", "error", "novelty", "accepted", "source", "unlabelled"}


def finished(output: Output, formats: Any, also: Any = None, columns: Any = ()) -> Counts:
    """Write what is made of all shards, the review queue where it is missing and tables in
    `formats`, and count them; `also` takes each shard's `columns` too. Each shard is read once."""
    counts = Counts()
    config, wanted = output.run["config"], {*COUNTED, *columns}
    with ExitStack() as stack:
        queue = None
        asked = acceptance_of(output.run)["thresholds"] is not None
        if asked and not output.folder.exists(REVIEW):
            queue = stack.enter_context(review_queue(config["classes"], config["top_k"]))
            wanted |= set(COLUMNS)

        def handed_on() -> Any:
            for table in shards.iter_shards(output, None if formats else sorted(wanted)):
                counts.add(table)
                if queue is not None:
                    queue.add(table)
                if also is not None:
                    also(table)
                yield table

        if not formats:
            for _ in handed_on():
                pass
        for number, ending in enumerate(formats):
            tables = shards.iter_shards(output) if number else handed_on()
            with output.folder.create(f"labels.{ending}") as file:
                TABLE_WRITERS[ending](tables, file)
        if queue is not None:
            queue.write(output.folder)
    return counts
