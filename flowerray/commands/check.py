"""Faults of a labelled set: copies, leakage, wrong labels, uneven classes, odd files.

All but wrong labels show in the photographs themselves; those show in features, by a classifier
that is cross-validated on them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from flowerray.bases.spec import BaseSpec, base_named
from flowerray.heads.copies import first_of_each
from flowerray.outputs import kinds, shards
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import Output, read_output
from flowerray.outputs.stored import mapped
from flowerray.progress import Progress
from flowerray.settings import CheckSettings, ExtractSettings
from flowerray.sources import photographs
from flowerray.sources.labelled import photographs_to_extract
from flowerray.sources.listing import FOUND
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder, whole_file
from flowerray.trust.duplicates import HASH_SIDE, NEAR_COSINE
from flowerray.trust.findings import (
    Finding,
    LabelledSet,
    PhotographFile,
    copied,
    copies_in,
    odd_sizes,
    pile_copies,
    similar_names,
    uneven_classes,
    unreadable,
)
from flowerray.trust.neighbours import near_groups
from flowerray.trust.suspects import embed, mislabelled

CHECKS_OF_PILE = ("unreadable", "exact_duplicate", "near_duplicate")
HASH_PIXELS = 256  # a JPEG is decoded at a reduced scale of at least this many pixels each way


@dataclass(frozen=True)
class CheckSummary:
    """What the checks found.

    `labels` counts the usable photographs by class, `counts` the findings of each check that was
    done; `passed` is false where --strict was asked for and anything was found.
    """

    source: str
    photographs: int
    labels: dict[str, int]
    counts: dict[str, int]
    findings: list[Finding]
    notes: list[str]
    out: str | None
    passed: bool


def check(settings: CheckSettings) -> CheckSummary:
    """Check a labelled set, or the features of one.

    Raises:
        FlowerrayError: no photographs, unfinished features, an --out that can't be written.
    """
    labelled = _open(settings)
    if labelled.is_embedded_pile:
        return _check_pile(settings, labelled)
    files = _read_files(labelled, range(len(labelled.uris)), settings.limits)
    checks, notes = list(settings.checks), list[str]()
    if labelled.output is None:
        labelled = replace(labelled, rejected=_rejections(files))
        if "mislabelled" in checks:
            checks.remove("mislabelled")
            notes.append(
                "mislabelled photographs show in features alone: `flowerray extract "
                f"{settings.source} --out features`, then `flowerray check features`"
            )
    else:
        now = zip(_rejections(files), labelled.rejected, strict=True)
        lost = Counter(file.reason for file, before in now if file and not before)
        if lost:
            notes.append(
                f"{lost.total():,} photographs can't be read as they were extracted "
                f"({', '.join(lost)}): only their labels are checked"
            )
    copies = copies_in(labelled, files)
    groups = copies.groups(len(labelled.uris))
    findings = [
        *unreadable(labelled),
        *odd_sizes(labelled, files, settings),
        *uneven_classes(labelled, settings),
        *similar_names(labelled),
        *copied(labelled, copies, groups),
    ]
    if labelled.output is not None and "mislabelled" in checks:
        embedded = embed(labelled.output)
        findings += mislabelled(labelled, embedded, groups, notes)
    return _summary(settings, labelled, checks, findings, groups, notes)


def _check_pile(settings: CheckSettings, labelled: LabelledSet) -> CheckSummary:
    """Find the copies in a pile by its stored embeddings; of the photographs only those are read
    that have a near one."""
    assert labelled.output is not None
    checks, notes = [name for name in settings.checks if name in CHECKS_OF_PILE], list[str]()
    if len(checks) < len(settings.checks):
        notes.append(
            "of a pile's features copies are checked alone; all else shows in the photographs, or "
            "in labelled ones"
        )
    findings, groups = list(unreadable(labelled)), np.arange(len(labelled.uris))
    if settings.keep_one is not None or {"exact_duplicate", "near_duplicate"} & set(checks):
        with tempfile.TemporaryDirectory(prefix="flowerray-") as directory:
            embeddings, rows = mapped(labelled.output, Path(directory))
            near = near_groups(embeddings, NEAR_COSINE)
            del embeddings  # or its file would stay
        several = np.bincount(near)[near] > 1
        rows, near = rows[several], near[several]
        files = _read_files(labelled, rows, settings.limits)
        lost = Counter(file.reason for file in files if isinstance(file, Rejected))
        notes.append(
            f"{len(rows):,} of {len(labelled.uris):,} photographs have another of nearly the same "
            "embedding and were read"
            + (f"; {lost.total():,} of them can't be any more ({', '.join(lost)})" if lost else "")
        )
        copies, groups = pile_copies(labelled, rows, files, near)
        findings += copies
    return _summary(settings, labelled, checks, findings, groups, notes)


def _summary(
    settings: CheckSettings,
    labelled: LabelledSet,
    checks: list[str],
    findings: list[Finding],
    groups: np.ndarray,
    notes: list[str],
) -> CheckSummary:
    """Write what was asked for: the findings of the `checks`, and one photograph of each of the
    `groups` (n,)."""
    findings = [f for name in checks for f in findings if f.check == name]
    if settings.out is not None:
        with whole_file(settings.out) as stream:
            stream.write(as_csv(findings).encode())
    if settings.keep_one is not None:
        notes.append(_keep_one(labelled, groups, settings.keep_one))
    rejected = Counter(bad.reason for bad in labelled.rejected if bad)
    shards.check_some_used(len(labelled.uris), dict(rejected.most_common()))
    counts = Counter(finding.check for finding in findings)
    return CheckSummary(
        settings.source,
        len(labelled.uris),
        labelled.counts(),
        {name: counts[name] for name in checks},
        findings,
        notes,
        settings.out,
        passed=not (settings.strict and findings),
    )


def _open(settings: CheckSettings) -> LabelledSet:
    try:
        Folder.at(settings.source).read("run.json")
    except OSError:  # what can't be read as an output may still be photographs
        kinds.check_photographs(settings.source)
        images = ExtractSettings(
            images=settings.source,
            out="",
            uri_column=settings.uri_column,
            label_column=settings.label_column,
        )
        batches = photographs_to_extract(images, trainable=False)
        found = pa.Table.from_batches(batches, FOUND)
        return _labelled(found, [None] * len(found), base_named("vgg16").input_size)
    output = read_output(settings.source, "features")
    output.check_whole()
    folder, manifest = output.folder, output.manifest
    found = pa.concat_tables(rows_of(folder, manifest, s) for s in manifest.shards())
    errors = shards.read_table(output, ["error", "error_detail"]).to_pylist()
    rejected = [
        Rejected(row["error"], row["error_detail"]) if row["error"] else None for row in errors
    ]
    spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
    return _labelled(found, rejected, spec.input_size, output)


def _labelled(
    found: pa.Table, rejected: list[Rejected | None], input_size: int, output: Output | None = None
) -> LabelledSet:
    uris, labels, splits, sizes = (found[name].to_pylist() for name in FOUND.names)
    return LabelledSet(uris, labels, splits, sizes, rejected, input_size, output)


def _read_files(
    labelled: LabelledSet, rows: Sequence[int] | np.ndarray, limits: Limits
) -> list[PhotographFile | Rejected]:
    """The file of each photograph at `rows`, or why it gives nothing; the rejected ones are not
    tried again."""
    progress, files = Progress("check", len(rows)), []
    progress.ready(0)
    pool = ThreadPoolExecutor()  # reading, hashing and decoding leave Python's lock to others
    try:
        listed = (labelled.uris, labelled.sizes, labelled.rejected)
        chosen = ([column[row] for row in rows] for column in listed)
        for file in pool.map(partial(_read_file, limits), *chosen):
            files.append(file)
            progress.add(1, isinstance(file, Rejected))
    finally:
        pool.shutdown(cancel_futures=True)
    progress.finish()
    return files


def _read_file(
    limits: Limits, uri: str, size: int | None, rejected: Rejected | None
) -> PhotographFile | Rejected:
    """All files are hashed, also those whose size no other has: their bytes are here already for
    the decoder, which takes a hundred times as long."""
    import imagehash

    if rejected is not None:
        return rejected
    try:
        data = photographs.read(uri, size, limits)
        image = photographs.open_image(data, limits)
        sides = image.size
        bits = imagehash.phash(photographs.upright(image, HASH_PIXELS), HASH_SIDE).hash
    except Rejected as why:
        return why
    return PhotographFile(hashlib.sha256(data).digest(), np.packbits(bits).tobytes(), sides)


def _rejections(files: list[PhotographFile | Rejected]) -> list[Rejected | None]:
    return [file if isinstance(file, Rejected) else None for file in files]


def _keep_one(labelled: LabelledSet, groups: np.ndarray, path: str) -> str:
    """Write the usable photographs as a table, of each of the `groups` (n,) of copies the first;
    what to say."""
    usable = np.array([why is None for why in labelled.rejected], bool)
    kept = np.flatnonzero(usable)[first_of_each(groups[usable])]
    several = int((np.bincount(groups[usable]) > 1).sum())
    text = io.StringIO()
    columns = (labelled.uris, labelled.labels, labelled.splits)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("uri", "label", "split"), *([c[row] for c in columns] for row in kept)])
    with whole_file(path) as stream:
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))
    return (
        f"{several:,} groups of copies; {len(kept):,} of {int(usable.sum()):,} photographs, one of "
        f"each group, are listed in {path}"
    )


def as_csv(findings: list[Finding]) -> str:
    """One row a finding, nothing where a column has no meaning."""
    text = io.StringIO()
    columns = list(Finding.__dataclass_fields__)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(finding) for finding in findings)
    return text.getvalue()
