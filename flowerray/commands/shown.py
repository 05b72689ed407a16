"""What each command prints for a person, of what its job returns."""

from __future__ import annotations

from typing import Any

from flowerray.settings import CHECKS


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

    lines = [as_text(done.scores), ""]
    lines += [
        f"{m['uri']}: original label {m['original_label']}, prediction {m['prediction']}, "
        f"confidence {m['confidence']:.3f}"
        for m in done.mistakes
    ]
    next_step = f"next: flowerray label PILE --classifier {done.out} --out labels"
    return "\n".join(
        [*lines, "", f"fitted in {done.fit_seconds:.1f} s", f"classifier: {done.out}", next_step]
    )


def label(done: Any) -> str:
    labels = ", ".join(f"{count:,} {name}" for name, count in done.labels.items())
    lines = [
        f"{done.photographs:,} photographs: {labels}; rejected: {rejects(done.rejected)}",
        *([f"none of the classes: {done.unlabelled:,}"] if done.unlabelled else []),
        *([f"decided by people: {done.human:,}"] if done.human else []),
        f"novel, unlike all that was trained on: {done.novel:,}",
        f"labels: {done.out}",
    ]
    if done.accepted is not None:
        labelled = sum(done.labels.values())
        share = done.accepted / labelled if labelled else 0
        lines[-1:-1] = [f"accepted: {done.accepted:,} of {labelled:,} ({share:.0%})"]
        lines += [f"review: {done.out}/review.parquet"]
        return "\n".join([*lines, f"next: flowerray report {done.out}"])
    return "\n".join([*lines, f"next: flowerray accept {done.out} --min-precision 0.97"])


def accept(done: Any) -> str:
    labels = ", ".join(f"{count:,} {name}" for name, count in done.labels.items())
    lines = [
        f"{done.photographs:,} photographs: {labels}; none of the classes: {done.unlabelled:,}; "
        f"rejected: {rejects(done.rejected)}",
        f"decided by people: {done.human:,}",
    ]
    if done.accepted is not None:
        accepted, labelled = sum(done.accepted.values()), sum(done.labels.values())
        each = ", ".join(f"{count:,} {name}" for name, count in done.accepted.items())
        share = accepted / labelled if labelled else 0
        lines.append(f"accepted: {accepted:,} of {labelled:,} ({share:.0%}): {each}")
        lines.append(f"review: {done.out}/review.parquet")
    return "\n".join([*lines, f"labels: {done.out}", f"next: flowerray report {done.out}"])


def review(done: Any) -> str:
    each = ", ".join(f"{count:,} by {who}" for who, count in done.reviewers.items())
    return "\n".join(
        [
            f"decided by people: {done.decided:,}{f' ({each})' if each else ''}",
            f"labels: {done.out}",
            *(f"next: {command}" for command in done.next),
        ]
    )


def suggest(done: Any) -> str:
    return "\n".join(
        [
            f"{len(done.uris):,} of {done.photographs:,} photographs in {done.out}; fill in each "
            "one's label, none where it is none of the classes",
            f"next: flowerray accept LABELS --corrections {done.out}, then train and label again",
        ]
    )


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
    lines = [
        f"{name}: {one.judged - one.wrong:,} of {one.judged:,} judged right ({one.estimate:.1%}), "
        f"at least {one.bound:.1%} of {one.labels:,} ({sure})"
        for name, one in found
        if one.judged
    ]
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
        f"classes    {', '.join(done.train.classes)}",
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
        f"{as_text(done)}\n\nwithout a label: {done['without_label']}, "
        f"without a truth: {done['without_truth']}"
    )


def verify(done: Any) -> str:
    lines = [
        f"{done.present:,} of {done.expected:,} rows present, {done.missing:,} missing, "
        f"{done.doubled:,} doubled",
        f"rejected: {rejects(done.rejected)}",
    ]
    for what, names in (("damaged", done.damaged), ("of another run", done.foreign)):
        lines += [f"{what}: {name}" for name in names]
    mend = ": run the same job again to finish it"
    if done.doubled and not (done.missing or done.damaged or done.foreign):
        mend = ": --overwrite it"
    if done.damaged or done.foreign:
        mend = ": remove the files named above, then run the same job again"
    mend = "" if done.whole else mend
    return "\n".join([*lines, f"{done.out} is {'whole' if done.whole else 'not whole'}{mend}"])


CHECK_LINES = 10  # findings of each check that are shown


def check(done: Any) -> str:
    labels = ", ".join(f"{count:,} {name}" for name, count in done.labels.items())
    lines = [f"{done.photographs:,} photographs: {labels or 'no labels'}"]
    for name, count in done.counts.items():
        if not count:
            continue
        lines += ["", f"{name}: {count:,} {CHECKS[name]}"]
        for finding in [f for f in done.findings if f.check == name][:CHECK_LINES]:
            photographs = " = ".join(uri for uri in (finding.uri, finding.other_uri) if uri)
            lines.append("  " + ": ".join(part for part in (photographs, finding.detail) if part))
        if count > CHECK_LINES:
            lines.append(f"  and {count - CHECK_LINES:,} more: --json or --out has all")
    nothing = ", ".join(name for name, count in done.counts.items() if not count)
    lines += ["", f"nothing found: {nothing}"] if nothing else []
    lines += [f"note: {note}" for note in done.notes]
    return "\n".join([*lines, f"findings: {done.out}"] if done.out else lines)


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
    return "\n".join([*lines, f"--precision auto is {done.precision}, --engine auto {done.engine}"])


def doctor(done: Any) -> str:
    lines = []
    for node in done.nodes:
        able = [name for name in ("bfloat16", "int8", "openvino") if node[name]]
        lines += [
            f"{node['address']}: {node['processor']}, {node['ray_cpus']} CPUs, "
            f"{node['ray_gpus']} GPUs and {node['ray_memory_bytes'] / 2**30:.0f} GiB for Ray",
            f"  has {', '.join([*able, *node['gpus']]) or 'float32 alone'}",
        ]
    lines.append(f"weights cached here: {', '.join(done.weights) or 'none'}")
    return "\n".join([*lines, *(f"limit: {limit}" for limit in done.limits)])


def bases(done: Any) -> str:
    lines = [f"{'base':<20}{'input':>9}  preparation"]
    for name, base in done.items():
        side = base["input_size"]
        lines.append(f"{name:<20}{f'{side}x{side}':>9}  {base['preparation']}")
    return "\n".join(lines)
