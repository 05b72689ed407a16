"""What is wrong with a labelled set: copies, leakage, uneven classes, odd files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flowerray.outputs.record import Output
from flowerray.settings import CheckSettings
from flowerray.sources import names
from flowerray.sources.photographs import Rejected
from flowerray.trust.duplicates import (
    HASH_BITS,
    Copies,
    confirmed,
    copied_pairs,
    numbered,
    same_about,
)


@dataclass(frozen=True)
class Finding:
    """One fault, of a photograph or, where `uri` is empty, of the class `label`.

    Copies have the number of their `group`, from 1: the same for copies of copies.
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
    group: int | None = None


@dataclass(frozen=True)
class LabelledSet:
    """The photographs of a labelled set; `rejected` says why one is no use to train on."""

    uris: list[str]
    labels: list[str | None]
    splits: list[str | None]
    sizes: list[int | None]
    rejected: list[Rejected | None]
    input_size: int
    output: Output | None = None

    @property
    def is_embedded_pile(self) -> bool:
        """Whether these are stored embeddings of photographs without any label."""
        if self.output is None or any(label is not None for label in self.labels):
            return False
        return bool(self.output.run["config"]["base_spec"].get("pool") == "embedding")

    def counts(self) -> dict[str, int]:
        """The usable photographs of each class."""
        pairs = zip(self.labels, self.rejected, strict=True)
        counts = Counter(label for label, bad in pairs if bad is None)
        return {name: counts[name] for name in sorted(name for name in set(self.labels) if name)}


@dataclass(frozen=True)
class PhotographFile:
    """What a photograph's file tells: SHA-256, perceptual hash (HASH_BITS), width and height."""

    sha256: bytes
    phash: bytes
    sides: tuple[int, int]


def copies_in(labelled: LabelledSet, files: list[PhotographFile | Rejected]) -> Copies:
    """Photographs whose bytes are the same, or whose perceptual hashes nearly are."""
    rows = np.array(
        [row for row, file in enumerate(files) if isinstance(file, PhotographFile)], np.int64
    )
    read = [file for file in files if isinstance(file, PhotographFile)]
    hashes = _hashes(read)
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


def pile_copies(
    labelled: LabelledSet,
    rows: np.ndarray,
    files: list[PhotographFile | Rejected],
    near: np.ndarray,
) -> tuple[list[Finding], np.ndarray]:
    """Of the photographs at `rows` (m,), whose `files` were read and whose embeddings make them one
    of the groups `near` (m,): a finding for each that is not the first of its group, naming that,
    or an earlier one of the same bytes; and group numbers (n,) of all photographs.
    """
    there = np.array([isinstance(file, PhotographFile) for file in files], bool)
    rows, near = rows[there], near[there]
    read = [file for file in files if isinstance(file, PhotographFile)]
    hashes = _hashes(read)
    same = confirmed(near, hashes)
    groups = np.arange(len(labelled.uris))
    _, firsts, numbers = np.unique(same, return_index=True, return_inverse=True)
    first = firsts[numbers]  # the place of each one's group's first
    groups[rows] = rows[first]
    copies = np.flatnonzero(first != np.arange(len(rows)))
    shown = {place: number for number, place in enumerate(np.unique(first[copies]), start=1)}
    earlier: dict[bytes, int] = {}
    for place, file in enumerate(read):
        earlier.setdefault(file.sha256, place)
    findings = []
    for place in copies[np.argsort(first[copies], kind="stable")]:
        exact = earlier[read[place].sha256]
        other = first[place] if exact == place else exact
        bits = int(np.bitwise_count(hashes[place] ^ hashes[other]).sum())
        findings.append(
            Finding(
                "near_duplicate" if exact == place else "exact_duplicate",
                labelled.uris[rows[place]],
                labelled.uris[rows[other]],
                score=float(bits),
                detail=same_about(exact != place, bits),
                group=shown[first[place]],
            )
        )
    return findings, groups


def _hashes(files: list[PhotographFile]) -> np.ndarray:
    """Their perceptual hashes, uint64 (n, words)."""
    hashes = np.frombuffer(b"".join(file.phash for file in files), np.uint64)
    return hashes.reshape(len(files), HASH_BITS // 64)


def copied(labelled: LabelledSet, copies: Copies, groups: np.ndarray) -> Iterator[Finding]:
    """One finding a photograph and check, naming the nearest copy, with the number of its one of
    the `groups` (n,)."""
    several = np.flatnonzero(np.bincount(groups) > 1)
    numbers = dict(zip(several.tolist(), range(1, len(several) + 1), strict=True))
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
                group=numbers[int(groups[row])],
            )


def unreadable(labelled: LabelledSet) -> Iterator[Finding]:
    for uri, label, why in zip(labelled.uris, labelled.labels, labelled.rejected, strict=True):
        if why is not None:
            detail = f"{why.reason}: {why.detail}"
            yield Finding("unreadable", uri, label=label, detail=detail)


def odd_sizes(
    labelled: LabelledSet, files: list[PhotographFile | Rejected], settings: CheckSettings
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


def uneven_classes(labelled: LabelledSet, settings: CheckSettings) -> Iterator[Finding]:
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


def similar_names(labelled: LabelledSet) -> Iterator[Finding]:
    counts = labelled.counts()
    for group in names.alike(counts):
        most = max(group, key=counts.__getitem__)
        for name in group:
            if name != most:
                detail = f"{counts[name]:,} of {name!r}, {counts[most]:,} of {most!r}"
                yield Finding("similar_names", "", label=name, suggested_label=most, detail=detail)
