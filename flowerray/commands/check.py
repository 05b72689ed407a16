"""Faults of a labelled set: copies, leakage, wrong labels, uneven classes, odd files.

All but wrong labels show in the photographs themselves; those show in features, by a classifier
that is cross-validated on them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.spec import BaseSpec, base_named
from flowerray.heads.copies import by_features, joined
from flowerray.heads.embedding import mean_activation
from flowerray.outputs import kinds, shards
from flowerray.outputs.manifest import rows_of
from flowerray.outputs.record import Output, read_output
from flowerray.progress import Progress, say
from flowerray.settings import CheckSettings, ExtractSettings
from flowerray.sources import names, photographs
from flowerray.sources.labelled import photographs_to_extract
from flowerray.sources.listing import FOUND
from flowerray.sources.photographs import Limits, Rejected
from flowerray.stores.folder import Folder, whole_file
from flowerray.trust.duplicates import HASH_BITS, HASH_SIDE, Copies, copied_pairs, numbered
from flowerray.trust.suspects import FOLDS, REPEATS, out_of_fold

HASH_PIXELS = 256  # a JPEG is decoded at a reduced scale of at least this many pixels each way


@dataclass(frozen=True)
class Finding:
    """One fault, of a photograph or, where `uri` is empty, of the class `label`.

    `check` is one of ``flowerray.settings.CHECKS``. `score` is for copies of any kind the number of
    bits in which the perceptual hashes differ; for mislabelled the probability of all classes but
    `label`; for imbalance the largest class over the smallest, for few_photographs
    the class's photographs; for small the shorter side in pixels, for extreme_aspect the longer
    side over the shorter.
    """

    check: str
    uri: str
    other_uri: str | None = None
    label: str | None = None
    suggested_label: str | None = None
    score: float | None = None
    detail: str = ""


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
    files = _read_files(labelled, settings.limits)
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
    copies = _copies(labelled, files)
    findings = [
        *_unreadable(labelled),
        *_odd_sizes(labelled, files, settings),
        *_uneven_classes(labelled, settings),
        *_similar_names(labelled),
        *_copied(labelled, copies),
    ]
    if labelled.output is not None and "mislabelled" in checks:
        embedded = _embed(labelled.output)
        findings += _mislabelled(labelled, embedded, copies, notes)
    findings = [f for name in checks for f in findings if f.check == name]
    if settings.out is not None:
        _write_csv(findings, settings.out)
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


@dataclass(frozen=True)
class _Labelled:
    """The photographs of a labelled set; `rejected` says why one is no use to train on."""

    uris: list[str]
    labels: list[str | None]
    splits: list[str | None]
    sizes: list[int | None]
    rejected: list[Rejected | None]
    input_size: int
    output: Output | None = None

    def counts(self) -> dict[str, int]:
        """The usable photographs of each class."""
        pairs = zip(self.labels, self.rejected, strict=True)
        counts = Counter(label for label, bad in pairs if bad is None)
        return {name: counts[name] for name in sorted(name for name in set(self.labels) if name)}


def _open(settings: CheckSettings) -> _Labelled:
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
) -> _Labelled:
    uris, labels, splits, sizes = (found[name].to_pylist() for name in FOUND.names)
    return _Labelled(uris, labels, splits, sizes, rejected, input_size, output)


@dataclass(frozen=True)
class _File:
    """What a photograph's file tells: SHA-256, perceptual hash (HASH_BITS), width and height."""

    sha256: bytes
    phash: bytes
    sides: tuple[int, int]


def _read_files(labelled: _Labelled, limits: Limits) -> list[_File | Rejected]:
    """Each photograph's file, or why it gives nothing; the rejected ones are not tried again."""
    progress, files = Progress("check", len(labelled.uris)), []
    progress.ready(0)
    pool = ThreadPoolExecutor()  # reading, hashing and decoding leave Python's lock to others
    try:
        listed = (labelled.uris, labelled.sizes, labelled.rejected)
        for file in pool.map(partial(_read_file, limits), *listed):
            files.append(file)
            progress.add(1, isinstance(file, Rejected))
    finally:
        pool.shutdown(cancel_futures=True)
    progress.finish()
    return files


def _read_file(
    limits: Limits, uri: str, size: int | None, rejected: Rejected | None
) -> _File | Rejected:
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
    return _File(hashlib.sha256(data).digest(), np.packbits(bits).tobytes(), sides)


def _rejections(files: list[_File | Rejected]) -> list[Rejected | None]:
    return [file if isinstance(file, Rejected) else None for file in files]


def _copies(labelled: _Labelled, files: list[_File | Rejected]) -> Copies:
    """Photographs whose bytes are the same, or whose perceptual hashes nearly are."""
    rows = np.array([row for row, file in enumerate(files) if isinstance(file, _File)], np.int64)
    read = [file for file in files if isinstance(file, _File)]
    hashes = np.frombuffer(b"".join(file.phash for file in read), np.uint64)
    hashes = hashes.reshape(len(read), HASH_BITS // 64)
    contents, labels, splits = (
        np.array(numbered(values), np.int64)
        for values in (
            [file.sha256 for file in read],
            [labelled.labels[row] for row in rows],
            [labelled.splits[row] for row in rows],
        )
    )
    first, second, bits = copied_pairs(hashes, contents, labels, splits)
    return Copies(rows[first], rows[second], bits, contents[first] == contents[second])


def _copied(labelled: _Labelled, copies: Copies) -> Iterator[Finding]:
    """One finding a photograph and check, naming the nearest copy."""
    labels, splits = np.array(labelled.labels, object), np.array(labelled.splits, object)
    both = copies.both_ways()
    known = (labels[copies.first] != None) & (labels[copies.second] != None)  # noqa: E711
    leaks = (splits[both.first] == "train") & (splits[both.second] == "valid")
    for name, pairs in (
        ("exact_duplicate", copies.chosen(copies.exact)),
        ("near_duplicate", copies.chosen(~copies.exact)),
        ("leakage", both.chosen(leaks)),
        ("two_labels", copies.chosen(known & (labels[copies.first] != labels[copies.second]))),
    ):
        pairs = pairs.nearest()
        for pair, (other, row) in enumerate(zip(pairs.first, pairs.second, strict=True)):
            detail = pairs.detail(pair)
            if name == "two_labels":
                detail = f"{labels[row]} here, {labels[other]} there; {detail}"
            yield Finding(
                name,
                labelled.uris[row],
                labelled.uris[other],
                labels[row],
                score=float(pairs.bits[pair]),
                detail=detail,
            )


def _unreadable(labelled: _Labelled) -> Iterator[Finding]:
    for uri, label, why in zip(labelled.uris, labelled.labels, labelled.rejected, strict=True):
        if why is not None:
            detail = f"{why.reason}: {why.detail}"
            yield Finding("unreadable", uri, label=label, detail=detail)


def _odd_sizes(
    labelled: _Labelled, files: list[_File | Rejected], settings: CheckSettings
) -> Iterator[Finding]:
    smallest = settings.min_side or labelled.input_size
    for uri, label, file in zip(labelled.uris, labelled.labels, files, strict=True):
        if isinstance(file, Rejected):
            continue
        short, long = sorted(file.sides)
        shown = f"{file.sides[0]}x{file.sides[1]} pixels"
        if short < smallest:
            yield Finding("small", uri, label=label, score=float(short), detail=shown)
        if long > settings.max_aspect * short:
            aspect = round(long / short, 3)
            yield Finding("extreme_aspect", uri, label=label, score=aspect, detail=shown)


def _uneven_classes(labelled: _Labelled, settings: CheckSettings) -> Iterator[Finding]:
    counts = labelled.counts()
    if not counts:
        return
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] > settings.max_imbalance * counts[least]:
        ratio = round(counts[most] / max(counts[least], 1), 3)
        detail = f"{counts[most]:,} of {most}, {counts[least]:,} of {least}"
        yield Finding("imbalance", "", label=least, score=ratio, detail=detail)
    for name, count in counts.items():
        if count < settings.min_photographs:
            detail = f"{count:,} usable photographs of {name}"
            yield Finding("few_photographs", "", label=name, score=float(count), detail=detail)


def _similar_names(labelled: _Labelled) -> Iterator[Finding]:
    counts = labelled.counts()
    for group in names.alike(counts):
        most = max(group, key=counts.__getitem__)
        for name in group:
            if name != most:
                detail = f"{counts[name]:,} of {name!r}, {counts[most]:,} of {most!r}"
                yield Finding("similar_names", "", label=name, suggested_label=most, detail=detail)


def _embed(output: Output) -> np.ndarray:
    """Features float32 (photographs, channels) as the logistic recipe prepares them: softsign in
    units of the mean activation, averaged over the map, of unit length; zeros where rejected."""
    scale = mean_activation(activations for activations, _ in _features(output))
    parts = []
    for activations, there in _features(output):
        activations /= scale
        activations /= 1 + np.abs(activations)
        pooled = activations.mean(axis=tuple(range(1, activations.ndim - 1)))
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        part = np.zeros((len(there), pooled.shape[1]), np.float32)
        part[there] = pooled / np.maximum(length, 1e-6)
        parts.append(part)
    return np.concatenate(parts)


def _features(output: Output) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each shard the features float32 (rows that have them, *feature_shape), and which rows
    those are, bool (rows,)."""
    for table in shards.iter_shards(output, ["features"]):
        shape = json.loads(table.schema.metadata[b"feature_shape"])
        there = pc.is_valid(table["features"])
        values = table["features"].filter(there).combine_chunks().flatten().to_numpy()
        yield values.reshape(-1, *shape).astype(np.float32), there.to_numpy()


def _mislabelled(
    labelled: _Labelled, embedded: np.ndarray, copies: Copies, notes: list[str]
) -> Iterator[Finding]:
    """Photographs that are probably of another class, the most suspicious first.

    Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", JAIR 70, 2021): out-of-fold probabilities estimate how many photographs of each
    class are labelled as which other ("prune by noise rate", the authors' default), and as many are
    suspected. The least probable label comes first. Of 20 labels swapped among 1,650 photographs
    the first 40 suspects held 15, 14, 15 (seeds 0 to 2) by one cross-validation of mlp heads, 16,
    15, 16 by the mean of three.
    """
    from cleanlab.filter import find_label_issues

    known = zip(labelled.labels, labelled.rejected, strict=True)
    rows = [row for row, (name, bad) in enumerate(known) if name is not None and bad is None]
    named = [str(labelled.labels[row]) for row in rows]
    groups = joined(
        copies.groups(len(labelled.uris))[rows],
        by_features(embedded[rows], np.array(numbered(named), np.int64)),
    )
    usable = [
        (labelled.uris[row], name, group, embedded[row])
        for row, name, group in zip(rows, named, groups, strict=True)
    ]
    different = Counter(name for name, _ in {(name, group) for _, name, group, _ in usable})
    classes = sorted(name for name, count in different.items() if count >= FOLDS)
    if len(classes) < len(different):
        few = ", ".join(sorted(set(different) - set(classes)))
        notes.append(f"{few}: fewer than {FOLDS} different photographs, too few to judge labels")
    judged = [row for row in usable if row[1] in set(classes)]
    if len(classes) < 2:
        notes.append("labels are judged where two classes or more have photographs enough")
        return
    say(f"check: {FOLDS * REPEATS} fits on {len(judged):,} photographs of {len(classes)} classes")
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[name] for _, name, _, _ in judged])
    features = np.stack([feature for *_, feature in judged])
    probabilities = out_of_fold(features, labels, np.array([group for _, _, group, _ in judged]))
    suspects = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    for row in suspects:
        (uri, given, _, _), best = judged[row], int(probabilities[row].argmax())
        own, other = probabilities[row, labels[row]], probabilities[row, best]
        yield Finding(
            "mislabelled",
            uri,
            label=given,
            suggested_label=classes[best],
            score=round(1 - float(own), 6),
            detail=f"{given} {own:.3f}, {classes[best]} {other:.3f}",
        )


def _write_csv(findings: list[Finding], path: str) -> None:
    """One row a finding, nothing where a column has no meaning."""
    text = io.StringIO()
    columns = list(Finding.__dataclass_fields__)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(finding) for finding in findings)
    with whole_file(path) as stream:
        stream.write(text.getvalue().encode())
